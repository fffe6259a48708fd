//! Scheduled tasks: what the rules of EventBridge have ECS run, brought to the new version once every service is
//! proven.

mod put_back;

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    rc::Rc,
    time::Duration,
};

use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep, timeout};

pub use put_back::{Families, PutBack, put_back};

use super::{
    Cause, Clients, PATIENCE, answered_telling, awaited_turn, explain,
    preflight::{Problem, Remark, find_images, unclear_choice},
    update::READS_MAY_BE_STALE,
};
use crate::{
    aws::{Error, Fate},
    config::{ScheduledTask, UpdateStrategy},
    ecs::{ImageChange, TaskDefinition, TaskDefinitionArn},
    eventbridge::{NotAllPut, Target},
    git_sha::GitSha,
    outcome::{EndedSchedule, ScheduleOutcome},
    poll::{self, Backoff, PACE},
    report::{self, Event, Phase, RuleEvent},
    text::excerpt,
};

/// What was seen of a rule before anything was changed.
pub struct Schedule<'a> {
    /// The scheduled task.
    pub task: &'a ScheduledTask,
    /// The rule's region.
    pub region: String,
    /// The version to deploy.
    pub version: &'a GitSha,
    /// What ECS runs for the rule, in the order of its targets; empty where the rule stays as it is.
    pub jobs: Vec<Job>,
    /// What the user should know before anything is changed.
    pub remarks: Vec<Remark>,
    /// All targets of the rule, as they came.
    targets: Vec<Target>,
    /// The families that a rule names which stays as it is, with their newest revisions where ECS could tell them.
    followed: Vec<(TaskDefinitionArn, TaskDefinitionArn)>,
}

/// One target of a rule that ECS runs a task for.
pub struct Job {
    /// The target, as it came.
    target: Target,
    /// What it names.
    pub names: TaskDefinitionArn,
    /// What it runs now: the revision that it names, or the newest of the family that it names.
    pub runs: Rc<TaskDefinition>,
    /// The family's newest revision, where that is another and is to be the base.
    pub newest: Option<Rc<TaskDefinition>>,
    /// What deploying makes of the base's images.
    pub changes: Vec<ImageChange>,
}

impl Job {
    /// What the new revision is made from.
    pub fn base(&self) -> &TaskDefinition {
        self.newest.as_ref().unwrap_or(&self.runs)
    }

    /// The base, where it will do as it is: none of its images is to change, and tasks of it can be run.
    pub fn ready(&self) -> Option<&TaskDefinition> {
        let base = self.base();
        let will_do = base.is_active() && self.changes.iter().all(|change| change.from == change.to);
        will_do.then_some(base)
    }

    /// Whether it runs the version already, so that nothing of it is to change.
    fn is_up_to_date(&self) -> bool {
        self.ready().is_some_and(|ready| ready.arn == self.runs.arn)
    }

    /// The target as it is once it is put back. It names the revision that it ran also where it named none before: the
    /// newest of the family would be the one that is taken back.
    fn back(&self) -> Target {
        self.target.naming(&self.runs.arn)
    }
}

impl Schedule<'_> {
    /// Tells what happened to it.
    pub fn say(&self, event: &Event<'_>) {
        report::say_of_rule(&self.task.rule, event);
    }

    /// Tells what happens only to rules.
    pub fn tell(&self, event: RuleEvent<'_>) {
        self.say(&Event::OfRule(event));
    }

    /// Whether the rule stays as it is, whatever happens to it.
    pub fn stays(&self) -> bool {
        !self.task.update_strategy.makes_revision()
    }

    /// Whether registering a revision changes what the rule runs, because a target names a family.
    pub fn follows_its_family(&self) -> bool {
        self.to_change().any(|job| !job.names.names_revision())
    }

    /// Whether any of its targets is to change.
    pub fn changes(&self) -> bool {
        self.to_change().next().is_some()
    }

    /// The targets that are to change.
    fn to_change(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| !job.is_up_to_date())
    }

    /// The task definitions that are known, with their versions for people.
    fn versions(&self) -> Vec<(TaskDefinitionArn, String)> {
        let known = self.jobs.iter().flat_map(|job| [Some(&job.runs), job.newest.as_ref()].into_iter().flatten());
        known.map(|known| (known.arn.clone(), known.version())).collect()
    }
}

/// The revisions that were registered in this run, so that equal targets share one.
#[derive(Default)]
pub struct Made(Vec<Revision>);

struct Revision {
    region: String,
    base: TaskDefinitionArn,
    containers: Option<Vec<String>>,
    arn: TaskDefinitionArn,
}

impl Made {
    /// Takes note of the revision `arn`, made from `base` with the new tag for `containers`.
    pub fn add(
        &mut self,
        region: &str,
        base: &TaskDefinitionArn,
        containers: Option<&[String]>,
        arn: TaskDefinitionArn,
    ) {
        let containers = containers.map(<[String]>::to_vec);
        self.0.push(Revision { region: region.to_owned(), base: base.clone(), containers, arn });
    }

    fn find(&self, schedule: &Schedule<'_>, base: &TaskDefinitionArn) -> Option<&TaskDefinitionArn> {
        let is_it = |made: &&Revision| {
            made.region == schedule.region && made.base == *base && made.containers == schedule.task.containers
        };
        self.0.iter().find(is_it).map(|made| &made.arn)
    }

    fn holds(&self, arn: &TaskDefinitionArn) -> bool {
        self.0.iter().any(|made| made.arn == *arn)
    }
}

/// What there is to undo of a rule.
pub struct Written {
    /// The targets that were put, or are about to be; none before what they will name is registered.
    after: Vec<Target>,
    /// What EventBridge has said to them.
    answer: Answer,
}

/// What EventBridge has said to targets that were put, as far as that tells what a look may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing: they may be there, or come to be there still.
    Awaited,
    /// Yes: a look that doesn't show them is from before.
    Yes,
    /// No, or they weren't sent: what a look shows is what there is.
    No,
}

/// How the turn of a rule ended, before anything is undone.
pub enum ScheduleAttempt {
    /// The rule runs the new version, in these task definitions.
    Updated(Vec<TaskDefinitionArn>),
    /// It ran the version already.
    UpToDate,
    /// It failed, and why.
    Failed(String),
    /// Somebody else has changed the rule, which runs this now.
    Superseded(Vec<TaskDefinitionArn>),
    /// The run ended before it did, and why.
    Interrupted(Cause),
}

/// Looks at the rule of `task`: it is there, ECS runs a task for it, and what that is can be read; which containers get
/// the new tag is clear, and the new images are there, as far as that can be told. Gives every problem that was found.
pub async fn preflight<'a>(
    clients: &Clients<'_>,
    task: &'a ScheduledTask,
    version: &'a GitSha,
) -> Result<Schedule<'a>, Vec<Problem>> {
    let Some(region) = clients.events.region(task).map(str::to_owned) else {
        return Err(vec![Problem {
            what: "no region is known for its rule".to_owned(),
            hint: Some("write it under the key `region`, or set AWS_REGION".to_owned()),
        }]);
    };
    let targets = look(clients, task, &region).await.map_err(|error| vec![Problem::from(error)])?;
    let tasks: Vec<_> = targets.iter().filter(|target| target.is_task()).collect();
    if tasks.is_empty() {
        return Err(vec![Problem {
            what: "its rule has no target that has ECS run a task".to_owned(),
            hint: Some(
                "take it out of the file, or give it such a target: gehen updates rules that have one".to_owned(),
            ),
        }]);
    }
    let mut schedule = Schedule {
        task,
        region,
        version,
        jobs: Vec::new(),
        remarks: Vec::new(),
        targets: targets.clone(),
        followed: Vec::new(),
    };
    if schedule.stays() {
        for family in running(&targets).into_iter().filter(|named| !named.names_revision()) {
            let newest =
                answered(task, async || clients.ecs.newest_of_family_in(&schedule.region, &family).await).await;
            schedule.followed.extend(newest.ok().map(|newest| (family.clone(), newest.arn)));
            schedule.remarks.push(Remark::NamesNoRevision { family, stays: true });
        }
        return Ok(schedule);
    }
    let mut problems = Vec::new();
    let named: Vec<_> = tasks
        .iter()
        .filter_map(|target| {
            let named = target.task_definition();
            if named.is_none() {
                let what = format!("target `{}` of the rule names no task definition", excerpt(target.id()));
                problems.push(Problem { what, hint: None });
            }
            Some(((*target).clone(), named?))
        })
        .collect();
    let described = describe(clients, &schedule, named.iter().map(|(_, named)| named), &mut problems).await;
    for (target, names) in named {
        let Some((runs, newest)) = described.get(&names).cloned() else { continue };
        let base = newest.as_ref().unwrap_or(&runs);
        let changes = base.changes(version);
        if !names.names_revision() {
            schedule.remarks.push(Remark::NamesNoRevision { family: names.clone(), stays: false });
        }
        if let Some(newest) = &newest {
            schedule.remarks.push(Remark::MadeFromNewest(newest.arn.clone()));
        }
        problems.extend(unclear_choice(base));
        schedule.jobs.push(Job { target, names, runs, newest, changes });
    }
    let mut changes: Vec<ImageChange> = Vec::new();
    for change in schedule.jobs.iter().flat_map(|job| &job.changes) {
        if !changes.contains(change) {
            changes.push(change.clone());
        }
    }
    let previous: BTreeSet<_> = schedule.jobs.iter().flat_map(|job| job.runs.images()).collect();
    let (missing, remarks) = find_images(clients, &changes, previous).await;
    problems.extend(missing);
    schedule.remarks.extend(remarks);
    if problems.is_empty() { Ok(schedule) } else { Err(problems) }
}

/// What each of the task definitions `named` is, with the family's newest beside it where that is another and asked
/// for.
async fn describe(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    named: impl Iterator<Item = &TaskDefinitionArn>,
    problems: &mut Vec<Problem>,
) -> HashMap<TaskDefinitionArn, (Rc<TaskDefinition>, Option<Rc<TaskDefinition>>)> {
    let Schedule { task, region, .. } = schedule;
    let mut distinct: Vec<&TaskDefinitionArn> = Vec::new();
    for arn in named {
        if !distinct.contains(&arn) {
            distinct.push(arn);
        }
    }
    let described = distinct.into_iter().map(async |arn| {
        let runs = answered(task, async || clients.ecs.task_definition_in(region, arn).await);
        let newest = async {
            if task.update_strategy != UpdateStrategy::Latest || !arn.names_revision() {
                return Ok(None);
            }
            answered(task, async || clients.ecs.newest_of_family_in(region, arn).await).await.map(Some)
        };
        let (runs, newest) = join(runs, newest).await;
        let choosing = |definition: TaskDefinition| Rc::new(definition.choosing(task.containers.as_deref()));
        let runs = choosing(runs?);
        let newest = newest?.map(choosing).filter(|newest| newest.arn != runs.arn);
        Ok::<_, Error>((arn.clone(), (runs, newest)))
    });
    let mut found = HashMap::new();
    for described in join_all(described).await {
        match described {
            Ok((arn, definitions)) => {
                found.insert(arn, definitions);
            }
            Err(error) => problems.push(error.into()),
        }
    }
    found
}

/// Tries a request that may safely be repeated, for as long as every request outside of a check.
async fn answered<T>(task: &ScheduledTask, request: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    answered_telling(|event| report::say_of_rule(&task.rule, event), request).await
}

/// ListTargetsByRule.
async fn look(clients: &Clients<'_>, task: &ScheduledTask, region: &str) -> Result<Vec<Target>, Error> {
    answered(task, async || clients.events.targets(region, task).await).await
}

/// Brings the rule of `schedule` to the new version, unless somebody else has changed it since preflight. `written`
/// tells, at any moment and even if this future is dropped, what there is to undo; `made` is what this run has
/// registered.
pub async fn update(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    made: &mut Made,
    written: &mut Option<Written>,
) -> ScheduleAttempt {
    match attempt(clients, schedule, made, written).await {
        Ok(attempt) => attempt,
        Err(error) => ScheduleAttempt::Failed(explain(&error).what),
    }
}

async fn attempt(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    made: &mut Made,
    written: &mut Option<Written>,
) -> Result<ScheduleAttempt, Error> {
    if let Some(changed) = look_again(clients, schedule, made).await? {
        return Ok(changed);
    }
    let mut after = Vec::new();
    let mut is_new = false;
    for job in schedule.to_change() {
        let named = match (made.find(schedule, &job.base().arn), job.ready()) {
            (Some(arn), _) => arn.clone(),
            (None, Some(ready)) => ready.arn.clone(),
            (None, None) => {
                let turn = clients.ecs.may_register_in(&schedule.region);
                let mut turn = awaited_turn(|event| schedule.say(event), Phase::Register, turn).await;
                if !job.names.names_revision() {
                    *written = Some(Written { after: Vec::new(), answer: Answer::Awaited });
                }
                is_new = true;
                let registration = job.base().registration(schedule.version);
                turn.take();
                drop(turn);
                let register = async || clients.ecs.register_in(&schedule.region, &registration).await;
                let arn = answered(schedule.task, register).await?;
                if let Some(written) = written {
                    written.answer = Answer::No;
                }
                schedule.say(&Event::Registered { revision: &arn, changes: &job.changes });
                made.add(&schedule.region, &job.base().arn, schedule.task.containers.as_deref(), arn.clone());
                arn
            }
        };
        after.push(job.target.naming(&named));
    }
    if after.is_empty() {
        return Ok(ScheduleAttempt::UpToDate);
    }
    // Registering may have taken a while: what is replaced must be what was looked at.
    if is_new && let Some(changed) = look_again(clients, schedule, made).await? {
        return Ok(changed);
    }
    let before: Vec<_> = schedule.to_change().map(|job| job.target.clone()).collect();
    let written = written.insert(Written { after: after.clone(), answer: Answer::Awaited });
    let sent = send(clients, schedule, &before, &after, PATIENCE).await;
    written.answer = match &sent {
        Ok(()) => Answer::Yes,
        Err(NotPut::Unclear(_) | NotPut::Superseded(_)) => Answer::Awaited,
        Err(NotPut::Refused(_)) => Answer::No,
    };
    let ended = match sent {
        Ok(()) => see(clients, schedule, &before, &after).await,
        not_put => not_put,
    };
    Ok(match ended {
        Ok(()) => {
            let now: Vec<_> = after.iter().filter_map(Target::task_definition).collect();
            ScheduleAttempt::Updated(now)
        }
        Err(NotPut::Refused(error) | NotPut::Unclear(error)) => ScheduleAttempt::Failed(explain(&error).what),
        Err(NotPut::Superseded(now)) => ScheduleAttempt::Superseded(now),
    })
}

/// Looks whether somebody else has changed what the rule runs since preflight: its targets, or the newest revision of a
/// family that one of them names.
async fn look_again(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    made: &Made,
) -> Result<Option<ScheduleAttempt>, Error> {
    let seen = look(clients, schedule.task, &schedule.region).await?;
    if !are_same(&seen, &schedule.targets) {
        return Ok(Some(ScheduleAttempt::Superseded(running(&seen))));
    }
    for job in schedule.to_change().filter(|job| !job.names.names_revision()) {
        let newest = async || clients.ecs.newest_of_family_in(&schedule.region, &job.names).await;
        let newest = answered(schedule.task, newest).await?;
        if newest.arn != job.runs.arn && !made.holds(&newest.arn) {
            return Ok(Some(ScheduleAttempt::Superseded(vec![newest.arn])));
        }
    }
    Ok(None)
}

/// Whether a rule has these targets and no others, in whatever order they are listed.
fn are_same(seen: &[Target], expected: &[Target]) -> bool {
    seen.len() == expected.len() && expected.iter().all(|target| seen.contains(target))
}

/// What ECS runs for these targets, each once.
fn running(targets: &[Target]) -> Vec<TaskDefinitionArn> {
    let mut running: Vec<_> = Vec::new();
    for named in targets.iter().filter_map(Target::task_definition) {
        if !running.contains(&named) {
            running.push(named);
        }
    }
    running
}

/// Why targets were not put.
enum NotPut {
    /// EventBridge refused all of them, whenever it was asked.
    Refused(Error),
    /// It failed, or the time for it ran out, and some or all may have been put.
    Unclear(Error),
    /// Somebody else has changed the rule, which runs this now.
    Superseded(Vec<TaskDefinitionArn>),
}

/// Where a rule stands between what it had and what is put.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Each target is the one that is put.
    After,
    /// Each target is one that was there or is put, and not all are the one that is put.
    Before,
    /// Somebody else has changed one of them.
    Changed,
}

/// Finds out from what is `seen` of the rule, in which the targets with the ids of `after` were each one of `before`.
fn standing(seen: &[Target], before: &[Target], after: &[Target]) -> Standing {
    let is_known = |put: &Target| {
        let mut known = before.iter().filter(|before| before.id() == put.id()).chain([put]);
        known.any(|known| seen.contains(known))
    };
    if after.iter().all(|put| seen.contains(put)) {
        Standing::After
    } else if after.iter().all(is_known) {
        Standing::Before
    } else {
        Standing::Changed
    }
}

/// Puts `after` in the place of `before`, trying for as long as `patience` while EventBridge stumbles. Every further
/// try is preceded by looks: a lost answer may belong to targets that were put, or come to be, which shows within the
/// time that reads may be stale, and in the meantime somebody else may have changed the rule.
async fn send(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    before: &[Target],
    after: &[Target],
    patience: Duration,
) -> Result<(), NotPut> {
    let Schedule { task, region, .. } = schedule;
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::default();
    let mut unclear = false;
    loop {
        let error = match clients.events.put(region, task, after).await {
            Ok(()) => return Ok(()),
            Err(NotAllPut { error, some }) => {
                unclear |= some;
                error
            }
        };
        if error.fate == Fate::Refused {
            return Err(if unclear { NotPut::Unclear(error) } else { NotPut::Refused(error) });
        }
        schedule.say(&Event::Stumbled(&excerpt(&error.to_string())));
        let shows_by = Instant::now() + if error.fate == Fate::Unknown { READS_MAY_BE_STALE } else { Duration::ZERO };
        loop {
            sleep(backoff.pause()).await;
            let seen = clients.events.targets(region, task).await;
            match seen.map(|seen| (standing(&seen, before, after), seen)) {
                Ok((Standing::After, _)) => return Ok(()),
                Ok((Standing::Changed, seen)) => return Err(NotPut::Superseded(running(&seen))),
                _ if Instant::now() >= deadline.max(shows_by) => return Err(NotPut::Unclear(error)),
                Ok((Standing::Before, _)) if Instant::now() >= shows_by => break,
                Ok((Standing::Before, _)) | Err(_) => {}
            }
        }
    }
}

/// Looks until the rule shows `after`, which EventBridge has taken in the place of `before`.
async fn see(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    before: &[Target],
    after: &[Target],
) -> Result<(), NotPut> {
    let Schedule { task, region, .. } = schedule;
    let since = Instant::now();
    let mut is_told = false;
    let mut backoff = Backoff::default();
    let seen = poll::until(since + PATIENCE, async || {
        let seen = clients.events.targets(region, task).await;
        match seen.map(|seen| (standing(&seen, before, after), seen)) {
            Ok((Standing::After, _)) => ControlFlow::Break(Ok(())),
            Ok((Standing::Changed, seen)) => ControlFlow::Break(Err(NotPut::Superseded(running(&seen)))),
            Ok((Standing::Before, _)) if since.elapsed() >= READS_MAY_BE_STALE => {
                let says = "EventBridge took the new targets, but the rule doesn't show them";
                ControlFlow::Break(Err(NotPut::Unclear(Error::unknown("events:PutTargets", says))))
            }
            Ok((Standing::Before, _)) => ControlFlow::Continue(PACE / 2),
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    schedule.say(&Event::TriesAgain { error: &excerpt(&error.to_string()), limit: PATIENCE });
                }
                ControlFlow::Continue(backoff.pause())
            }
        }
    });
    seen.await.unwrap_or_else(|| {
        let says = "EventBridge took the new targets, but could not be asked whether the rule shows them";
        Err(NotPut::Unclear(Error::unknown("events:PutTargets", says)))
    })
}

/// The longest that the turns of `schedules` may take one after another, and the longest that one may take to go back.
pub fn longest(schedules: &[Schedule<'_>]) -> (Duration, Duration) {
    let changes = |schedule: &&Schedule<'_>| schedule.changes();
    // Looks, a registration for each target, and then the targets, which are written and seen.
    let forth = schedules.iter().filter(changes).map(|schedule| PATIENCE * (4 + count(schedule.to_change())));
    let back = schedules.iter().filter(changes).map(|_| 3 * PATIENCE).max();
    (forth.sum(), back.unwrap_or_default())
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    items.fold(0, |count, _| count + 1)
}

/// One rule's turn.
#[derive(Default)]
pub struct ScheduleTurn {
    /// When it began, if it did.
    pub since: Option<Instant>,
    /// How long it took.
    pub took: Duration,
    /// What there is to undo.
    pub written: Option<Written>,
    /// How it ended; none where the run ended before it.
    pub attempt: Option<ScheduleAttempt>,
}

impl ScheduleTurn {
    /// Ends the turn, and says how.
    pub fn end(&mut self, schedule: &Schedule<'_>, attempt: ScheduleAttempt) {
        self.took = self.since.map(|since| since.elapsed()).unwrap_or_default();
        schedule.tell(RuleEvent::Ended { attempt: &attempt, took: self.took });
        self.attempt = Some(attempt);
    }
}

/// How a rule ended, all told; `ended` is why the whole run did.
fn outcome(schedule: &Schedule<'_>, turn: ScheduleTurn, back: Option<PutBack>, ended: &str) -> ScheduleOutcome {
    let ended = || ended.to_owned();
    match (turn.attempt, back) {
        _ if schedule.stays() => ScheduleOutcome::Stays(schedule.task.update_strategy),
        (None, None | Some(PutBack::Unchanged)) => ScheduleOutcome::NotReached,
        (Some(ScheduleAttempt::Failed(why)), None) => ScheduleOutcome::NotUpdated { why },
        (Some(ScheduleAttempt::Failed(why)), Some(back)) => ScheduleOutcome::PutBack { why, back },
        (_, Some(back)) => ScheduleOutcome::PutBack { why: ended(), back },
        (Some(ScheduleAttempt::Updated(to)), None) => ScheduleOutcome::Updated(to),
        (Some(ScheduleAttempt::UpToDate), None) => ScheduleOutcome::UpToDate,
        (Some(ScheduleAttempt::Superseded(_)), None) => ScheduleOutcome::Superseded,
        (Some(ScheduleAttempt::Interrupted(_)), None) => ScheduleOutcome::NotUpdated { why: ended() },
    }
}

/// Adds what the last line says. What the rule runs now is what a last look shows, and nothing else.
pub async fn conclude(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    turn: ScheduleTurn,
    back: Option<(PutBack, Duration)>,
    ended: &str,
    patience: Duration,
) -> EndedSchedule {
    let Schedule { task, region, .. } = schedule;
    let (back, undoing) = back.unzip();
    let took = turn.took + undoing.unwrap_or_default();
    let mut known = schedule.versions();
    if let Some(written) = &turn.written {
        let ours = written.after.iter().filter_map(Target::task_definition);
        known.extend(ours.map(|ours| (ours, schedule.version.to_string())));
    }
    let after = turn.written.as_ref().map(|written| written.after.clone()).unwrap_or_default();
    let outcome = outcome(schedule, turn, back, ended);
    let last_look = timeout(patience, poll::answered(patience, async || clients.events.targets(region, task).await));
    let last_look = match last_look.await {
        Ok(Ok(targets)) => Ok(targets),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("EventBridge gave no answer within {} s", patience.as_secs_f64())),
    };
    // What somebody else has changed is not ours to put back, by hand either.
    let is_ours = |job: &&Job| {
        let ours = after.iter().filter(|put| put.id() == job.target.id()).chain([&job.target]);
        let ours: Vec<_> = ours.cloned().chain([job.back()]).collect();
        last_look.as_ref().map_or(true, |seen| ours.iter().any(|ours| seen.contains(ours)))
    };
    let ways_back = schedule.to_change().filter(is_ours).map(|job| way_back(schedule, job)).collect();
    let last_look = last_look.map(|seen| running(&seen));
    let followed = last_look.iter().flatten().filter(|named| !named.names_revision());
    let resolved = join_all(followed.map(async |family| {
        let newest = timeout(patience, clients.ecs.newest_of_family_in(region, family)).await;
        Some((family.clone(), newest.ok()?.ok()?.choosing(task.containers.as_deref())))
    }));
    let resolved: Vec<_> = resolved.await.into_iter().flatten().collect();
    known.extend(resolved.iter().map(|(_, newest)| (newest.arn.clone(), newest.version())));
    let newest: Vec<_> = resolved.into_iter().map(|(family, newest)| (family, newest.arn)).collect();
    let is_new = |now: &(TaskDefinitionArn, TaskDefinitionArn)| {
        schedule.followed.iter().any(|then| then.0 == now.0 && then.1 != now.1)
    };
    let outcome = match outcome {
        ScheduleOutcome::Stays(strategy) if newest.iter().any(is_new) => ScheduleOutcome::Follows(strategy),
        outcome => outcome,
    };
    EndedSchedule {
        rule: task.rule.clone(),
        outcome,
        before: schedule.jobs.iter().map(|job| job.runs.arn.clone()).collect(),
        last_look,
        newest,
        known,
        version: schedule.version.clone(),
        took,
        ways_back,
    }
}

/// The command that has a target run by hand what it ran. It doesn't hold the target itself, which may hold secrets.
fn way_back(schedule: &Schedule<'_>, job: &Job) -> String {
    let Schedule { task, region, .. } = schedule;
    let bus = task.event_bus.as_ref().map(|bus| format!(" --event-bus-name {bus}")).unwrap_or_default();
    let rule = format!("--region {region} --rule {}{bus}", task.rule);
    let (id, arn) = (job.target.id(), &job.runs.arn.0);
    format!(
        "aws events list-targets-by-rule {rule} --query \"Targets[?Id=='{id}']\" --output json | sed \
         's#\"TaskDefinitionArn\": \"[^\"]*\"#\"TaskDefinitionArn\": \"{arn}\"#' > target.json && aws events put-targets \
         {rule} --targets file://target.json"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventbridge::tests::target;

    #[test]
    fn a_rule_stands_where_its_own_targets_do() {
        let (a, b) = (|names| target("a", names), |names| target("b", names));
        let (before, after) = ([a("a:1"), b("b:1")], [a("a:2"), b("b:2")]);
        for (seen, expected) in [
            (vec![b("b:2"), a("a:2")], Standing::After),
            (vec![a("a:2"), b("b:2"), target("c", "c:1")], Standing::After),
            (vec![a("a:1"), b("b:1")], Standing::Before),
            (vec![a("a:2"), b("b:1")], Standing::Before),
            (vec![a("a:2"), b("b:3")], Standing::Changed),
            (vec![a("a:2")], Standing::Changed),
            (vec![], Standing::Changed),
        ] {
            assert_eq!(standing(&seen, &before, &after), expected);
        }
        assert!(are_same(&[b("b:1"), a("a:1")], &before));
        for other in [vec![a("a:1")], vec![a("a:1"), b("b:2")], vec![a("a:1"), b("b:1"), target("c", "c:1")]] {
            assert!(!are_same(&other, &before));
        }
    }
}

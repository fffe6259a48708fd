//! The log as JSON, one object a line: the names of its keys and words, which programs rely on.
//!
//! All names are in snake_case, so that none is taken for one of ECS's own, which are lowerCamel.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tracing::Level;

use super::{
    About, Event, Phase,
    conclusion::{Conclusion, Runs},
    lines::Said,
    progress::Board,
    schedule::{self, RuleEvent},
    url, verdict,
};
use crate::{
    config::Refused,
    deploy::{Attempt, Cause, Counts, Job, LastSeen, Proof, Remark, ScheduleAttempt},
    ecs::{ImageChange, SeenDeployment, TaskDefinitionArn},
    outcome::{AllEnded, End, Ended, EndedSchedule, Outcome, ScheduleOutcome},
    ping::Answer,
    text::{escape, excerpt},
};

/// The word for a phase.
pub fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preflight => "preflight",
        Phase::Register => "register",
        Phase::Update => "update",
        Phase::DeployCheck => "deploy_check",
        Phase::DrainCheck => "drain_check",
        Phase::Rollback => "rollback",
        Phase::End => "end",
    }
}

/// The word for an event.
pub fn name(event: &Event<'_>) -> &'static str {
    match event {
        Event::Begins => "begins",
        Event::Runs { .. } => "runs",
        Event::Remark(remark) => match remark {
            Remark::ReturnsElsewhere { .. } => "returns_elsewhere",
            Remark::HasCompleted(_) => "has_completed",
            Remark::NothingToReturnTo(_) => "nothing_to_return_to",
            Remark::Deregistered(_) => "deregistered",
            Remark::MadeFromNewest(_) => "made_from_newest",
            Remark::UnderWay(_) => "under_way",
            Remark::UrlShowsNoVersion(..) => "url_shows_no_version",
            Remark::NamesNoRevision { .. } => "names_no_revision",
            Remark::NothingProvesFirst => "nothing_proves_first",
            Remark::PreviousImageGone(_) => "previous_image_gone",
            Remark::ImagesUnknown(..) => "images_unknown",
        },
        Event::Registered { .. } => "registered",
        Event::NothingToRegister { .. } => "nothing_to_register",
        Event::WouldDeploy(_) => "would_deploy",
        Event::WouldReturn(_) => "would_return",
        Event::UrlProvesNothing { .. } => "url_proves_nothing",
        Event::Updated { .. } => "updated",
        Event::ShiftsTraffic { .. } => "shifts_traffic",
        Event::Checking { .. } => "deploy_check_begins",
        Event::Live { .. } => "deploy_check_passed",
        Event::Draining { .. } => "drain_check_begins",
        Event::Drained { .. } => "drain_check_passed",
        Event::Counted(_) => "counts",
        Event::UrlAnswered(_) => "url_answer",
        Event::EcsNotAnswered(_) => "ecs_not_answered",
        Event::RollbackAwaitsEcs { .. } => "rollback_awaits_ecs",
        Event::TasksNotAnswered(_) => "tasks_not_answered",
        Event::EcsSays(_) => "service_event",
        Event::AtStage { .. } => "stage",
        Event::StageUnknown { .. } => "stage_unknown",
        Event::AwaitsCompleted(_) => "awaits_completed",
        Event::StillWaits { .. } => "still_waits",
        Event::AwaitsTurn { .. } => "awaits_turn",
        Event::TurnCame => "turn_came",
        Event::Stumbled(_) => "stumbled",
        Event::TriesAgain { .. } => "tries_again",
        Event::Ended { .. } => "attempt_ended",
        Event::RollingBack { .. } => "rolling_back",
        Event::RollbackRequested { .. } => "rollback_requested",
        Event::RegisteredAgain { .. } => "registered_again",
        Event::NotYetStopped(_) => "not_yet_stopped",
        Event::NotStopped(_) => "not_stopped",
        Event::GoesBackByItself { .. } => "goes_back_by_itself",
        Event::GoesBackAsAsked { .. } => "goes_back_as_asked",
        Event::Displaced(_) => "displaced",
        Event::RollbackEnded(_) => "rollback_ended",
        Event::OfRule(event) => match event {
            RuleEvent::Runs(_) => "runs",
            RuleEvent::WouldRun(_) => "would_deploy",
            RuleEvent::WouldReturn(_) => "would_return",
            RuleEvent::Ended { .. } => "attempt_ended",
            RuleEvent::RollingBack(_) => "rolling_back",
            RuleEvent::LeavesTarget { .. } => "leaves_target",
            RuleEvent::RollbackEnded(_) => "rollback_ended",
        },
    }
}

/// What an event carries beside its words, as an object.
pub fn fields(event: &Event<'_>) -> Value {
    match event {
        Event::Begins
        | Event::TurnCame
        | Event::AtStage { .. }
        | Event::AwaitsCompleted(_)
        | Event::RollbackEnded(_)
        | Event::Remark(
            Remark::NothingProvesFirst
            | Remark::NothingToReturnTo(_)
            | Remark::PreviousImageGone(_)
            | Remark::ImagesUnknown(..),
        ) => {
            json!({})
        }
        Event::Runs { running, version, .. } => json!({"task_definition": running.0, "version": version}),
        Event::Remark(Remark::ReturnsElsewhere { to: (to, version), .. }) => {
            json!({"task_definition": to.0, "version": version})
        }
        Event::Remark(
            Remark::HasCompleted(arn)
            | Remark::Deregistered(arn)
            | Remark::MadeFromNewest(arn)
            | Remark::NamesNoRevision { family: arn, .. },
        ) => {
            json!({"task_definition": arn.0})
        }
        Event::NothingToRegister { ready: arn, .. }
        | Event::GoesBackByItself { to: arn, .. }
        | Event::GoesBackAsAsked { to: arn } => json!({"task_definition": arn.0}),
        Event::Remark(Remark::UnderWay(other)) => deployment(other),
        Event::Displaced(other) => deployment(other),
        Event::Remark(Remark::UrlShowsNoVersion(address, answer)) => {
            with(json!({"url": url(address)}), answered(answer))
        }
        Event::Registered { revision, changes } => {
            json!({"task_definition": revision.0, "images": images(changes)})
        }
        Event::WouldDeploy(snapshot) => {
            json!({"task_definition": snapshot.base().arn.0, "images": images(&snapshot.changes)})
        }
        Event::WouldReturn(snapshot) => {
            snapshot.previous().map_or(json!({}), |to| json!({"task_definition": to.arn.0, "version": to.version()}))
        }
        Event::UrlProvesNothing { version } => json!({"version": version.to_string()}),
        Event::Updated { deployment, task_definition } => {
            json!({"task_definition": task_definition.0, "deployment": deployment.0})
        }
        Event::ShiftsTraffic { name, takes } => json!({"strategy": name, "takes_seconds": seconds(*takes)}),
        Event::Checking { proof, timeout } | Event::Draining { proof, timeout } => {
            let of_url = match proof {
                Proof::Url { url: address, version } => json!({"url": url(address), "version": version.to_string()}),
                Proof::Counts => json!({}),
            };
            with(json!({"timeout_seconds": seconds(*timeout)}), of_url)
        }
        Event::Live { how } | Event::Drained { how } => json!({"how": how}),
        Event::Counted(seen) => counts(*seen),
        Event::UrlAnswered(answer) => answered(answer),
        Event::RollbackAwaitsEcs { to, error } => json!({"task_definition": to.0, "error": error}),
        Event::EcsNotAnswered(error)
        | Event::TasksNotAnswered(error)
        | Event::StageUnknown { error, .. }
        | Event::Stumbled(error)
        | Event::NotYetStopped(error)
        | Event::NotStopped(error) => json!({"error": error}),
        Event::EcsSays(message) => json!({"service_event": message}),
        Event::StillWaits { took, left, seen: LastSeen { deployment, look, answer } } => {
            let waits = json!({"seconds": seconds(*took), "left_seconds": seconds(*left)});
            let look = look.as_ref().map_or(json!({}), |(look, age)| {
                with(counts(Counts { deployment, look }), json!({"counts_age_seconds": seconds(*age)}))
            });
            with(with(waits, look), answer.as_ref().map_or(json!({}), answered))
        }
        Event::AwaitsTurn { took, .. } => json!({"seconds": seconds(*took)}),
        Event::TriesAgain { error, limit } => json!({"error": error, "limit_seconds": seconds(*limit)}),
        Event::Ended { attempt, took, .. } => {
            let why = match attempt {
                Attempt::Failed(why) | Attempt::NotProven(why) | Attempt::NotBegun(why) => json!({"why": why.what}),
                Attempt::Live(Outcome::Undetermined { remaining, .. }) => json!({"why": remaining.what}),
                Attempt::Interrupted(Cause::Cancelled(by)) => json!({"cancelled_by": by}),
                Attempt::Interrupted(cause) => json!({"why": cause.to_string()}),
                Attempt::Superseded(replacement) => deployment(&replacement.by),
                Attempt::Live(_) => json!({}),
            };
            with(json!({"seconds": seconds(*took)}), why)
        }
        Event::RollingBack { to, version } => json!({"task_definition": to.0, "version": version}),
        Event::RollbackRequested { to, deployment: Some(deployment) } => {
            json!({"task_definition": to.0, "deployment": deployment.0})
        }
        Event::RollbackRequested { to, deployment: None } => json!({"task_definition": to.0}),
        Event::RegisteredAgain { previous, copy } => json!({"task_definition": copy.0, "copy_of": previous.0}),
        Event::OfRule(event) => fields_of_rule(event),
    }
}

fn fields_of_rule(event: &RuleEvent<'_>) -> Value {
    let runs = |job: &Job| json!({"task_definition": job.runs.arn.0, "version": job.runs.version()});
    match event {
        RuleEvent::LeavesTarget { id, now } => json!({"target": id, "task_definition": now.map(|now| &now.0)}),
        RuleEvent::RollingBack(back) => json!({"targets": back.iter().copied().map(runs).collect::<Value>()}),
        RuleEvent::Runs(schedule) | RuleEvent::WouldReturn(schedule) => {
            json!({"targets": schedule.jobs.iter().map(runs).collect::<Value>()})
        }
        RuleEvent::WouldRun(schedule) => {
            let would = |job: &Job| json!({"base": job.base().arn.0, "images": images(&job.changes)});
            json!({"targets": schedule.jobs.iter().map(would).collect::<Value>()})
        }
        RuleEvent::Ended { attempt, took } => {
            let how = match attempt {
                ScheduleAttempt::Updated(arns) | ScheduleAttempt::Superseded(arns) => {
                    json!({"task_definitions": all_of(arns)})
                }
                ScheduleAttempt::UpToDate => json!({}),
                ScheduleAttempt::Failed(why) => json!({"why": why}),
                ScheduleAttempt::Interrupted(Cause::Cancelled(by)) => json!({"cancelled_by": by}),
                ScheduleAttempt::Interrupted(cause) => json!({"why": cause.to_string()}),
            };
            with(json!({"seconds": seconds(*took)}), how)
        }
        RuleEvent::RollbackEnded(_) => json!({}),
    }
}

fn all_of(arns: &[TaskDefinitionArn]) -> Value {
    arns.iter().map(|arn| json!(arn.0)).collect()
}

fn images(changes: &[ImageChange]) -> Value {
    changes.iter().map(|one| json!({"container": one.container, "from": one.from, "to": one.to})).collect()
}

fn counts(seen: Counts<'_>) -> Value {
    let before = seen.others().map(|other| with(deployment(other), tasks(other))).collect::<Value>();
    let ours = match seen.ours() {
        Some(ours) => with(deployment(ours), tasks(ours)),
        None => json!({"deployment": seen.deployment.0}),
    };
    with(ours, json!({"before": before}))
}

fn deployment(seen: &SeenDeployment) -> Value {
    json!({"task_definition": seen.task_definition.0, "deployment": seen.id.0})
}

fn tasks(of: &SeenDeployment) -> Value {
    json!({"desired": of.desired, "running": of.running, "pending": of.pending, "failed": of.failed_tasks})
}

fn answered(answer: &Answer) -> Value {
    let version = match answer {
        Answer::Version(version) => json!({"url_version": version.to_string()}),
        Answer::NoVersion { .. } | Answer::Failed(_) => json!({}),
    };
    with(json!({"url_answer": answer.to_string()}), version)
}

/// Seconds to the millisecond.
pub fn seconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// An object with the entries of both.
fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// The line of an event.
pub fn line(level: Level, said: &Said) -> Value {
    let fields = serde_json::from_str(&said.fields).unwrap_or_default();
    object(level, (&said.kind, &said.name), &said.phase, &said.event, &said.message, fields)
}

/// What every line consists of: the keys that it always has, then its own.
fn object(level: Level, (kind, name): (&str, &str), phase: &str, event: &str, message: &str, fields: Value) -> Value {
    let mut line = Map::new();
    line.insert("time".into(), humantime::format_rfc3339_millis(SystemTime::now()).to_string().into());
    line.insert("level".into(), level.as_str().to_lowercase().into());
    if !name.is_empty() {
        line.insert(kind.into(), name.into());
    }
    line.insert("phase".into(), phase.into());
    line.insert("event".into(), event.into());
    line.insert("message".into(), message.into());
    escaped(with(Value::Object(line), fields))
}

/// `value` with every text escaped as it is in lines for people: what reads JSON may well print it.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => escape(&text).into(),
        Value::Array(values) => values.into_iter().map(escaped).collect(),
        Value::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, escaped(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

/// The last lines of a run that took so long: one for each service or problem, then the summary, which says it all once
/// more.
pub fn end(end: &End<'_>, board: &Board, took: Duration) -> Vec<Value> {
    let phase = word(Phase::End);
    let mut lines = Vec::new();
    let mut concludes = |about: About<'_>, level, headline: &str, fields: Value| {
        let (kind, name) = (about.kind(), about.name());
        lines.push(object(level, (kind, name), phase, "ended", headline, fields.clone()));
        with(json!({kind: name, "message": headline}), fields)
    };
    let (parts, more) = match end {
        End::All(AllEnded { services, schedules }) => {
            let mut parts = Vec::new();
            for ended in services {
                let conclusion = Conclusion::of(ended);
                let fields = concluded(ended, &conclusion);
                let about = About::Service(&ended.service);
                parts.push((about, concludes(about, conclusion.level(), &conclusion.headline, fields)));
            }
            for ended in schedules {
                let conclusion = schedule::Conclusion::of(ended);
                let fields = schedule_concluded(ended, &conclusion);
                let about = About::ScheduledTask(&ended.rule);
                parts.push((about, concludes(about, conclusion.level(), &conclusion.headline, fields)));
            }
            (parts, json!({}))
        }
        End::Problems(problems) => {
            let problems = problems.iter().map(|(subject, problem)| {
                let (kind, name) = (subject.about().kind(), subject.about().name());
                let hint = problem.hint.as_ref().map_or(json!({}), |hint| json!({"hint": hint}));
                lines.push(object(
                    Level::ERROR,
                    (kind, name),
                    word(Phase::Preflight),
                    "problem",
                    &excerpt(&problem.what),
                    hint.clone(),
                ));
                with(json!({kind: name, "message": problem.what}), hint)
            });
            let problems = problems.collect::<Value>();
            (not_concluded(board, end), json!({"problems": problems}))
        }
        End::Planned => (not_concluded(board, end), json!({"dry_run": true})),
        End::Cancelled(by) => (not_concluded(board, end), json!({"cancelled_by": by})),
        End::Refused(Refused { line: Some((number, text)), .. }) => {
            (not_concluded(board, end), json!({"line": number, "line_text": text}))
        }
        End::Abandoned | End::Refused(_) | End::Error(_) => (not_concluded(board, end), json!({})),
    };
    let (rules, services): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|(about, _)| matches!(about, About::ScheduledTask(_)));
    let [rules, services] = [rules, services].map(|parts| parts.into_iter().map(|(_, part)| part).collect::<Value>());
    // Who has none reads nothing of them.
    let rules = if rules == json!([]) { json!({}) } else { json!({"scheduled_tasks": rules}) };
    let level = match end.exit_code() {
        0 => Level::INFO,
        2 => Level::WARN,
        _ => Level::ERROR,
    };
    let summary = json!({
        "exit_code": end.exit_code(),
        "seconds": seconds(took),
        "services": services,
    });
    let version = if board.version().is_empty() { json!({}) } else { json!({"version": board.version()}) };
    lines.push(object(
        level,
        ("", ""),
        phase,
        "summary",
        &verdict(end),
        [version, rules, more].into_iter().fold(summary, with),
    ));
    lines
}

/// How one service ended, for its own line and for the summary.
fn concluded(ended: &Ended, conclusion: &Conclusion<'_>) -> Value {
    let optional = |key: &str, value: Option<Value>| value.map_or(json!({}), |value| json!({key: value}));
    let arn = |arn: &TaskDefinitionArn| json!(arn.0);
    let now = match conclusion.running() {
        Ok(running) => json!({"now": running.iter().map(runs).collect::<Value>()}),
        Err(why) => json!({"now": null, "now_unknown": excerpt(why)}),
    };
    [
        json!({
            "outcome": conclusion.word(),
            "version": ended.version.to_string(),
            "seconds": seconds(ended.took),
        }),
        optional("why", conclusion.why.as_deref().map(Value::from)),
        optional("updated_to", ended.updated_to.as_ref().map(arn)),
        optional("returned_to", conclusion.returned_to().map(arn)),
        now,
        optional("by_hand", conclusion.by_hand.as_deref().map(Value::from)),
        optional("displaced", (!ended.displaced.is_empty()).then(|| ended.displaced.iter().map(deployment).collect())),
    ]
    .into_iter()
    .fold(json!({}), with)
}

fn runs(runs: &Runs<'_>) -> Value {
    json!({"task_definition": runs.task_definition.0, "version": runs.version, "running": runs.tasks})
}

/// As [`concluded`], for a rule.
fn schedule_concluded(ended: &EndedSchedule, conclusion: &schedule::Conclusion<'_>) -> Value {
    let optional = |key: &str, value: Option<Value>| value.map_or(json!({}), |value| json!({key: value}));
    let now = match &ended.last_look {
        Ok(now) => {
            let runs =
                |arn: &TaskDefinitionArn| json!({"task_definition": arn.0, "version": conclusion.version_of(arn)});
            json!({"now": now.iter().map(runs).collect::<Value>()})
        }
        Err(why) => json!({"now": null, "now_unknown": excerpt(why)}),
    };
    let updated_to = match &ended.outcome {
        ScheduleOutcome::Updated(arns) => Some(all_of(arns)),
        _ => None,
    };
    [
        json!({
            "outcome": conclusion.word(),
            "version": ended.version.to_string(),
            "seconds": seconds(ended.took),
        }),
        optional("why", conclusion.why.as_deref().map(Value::from)),
        optional("updated_to", updated_to),
        now,
        optional("by_hand", (!conclusion.by_hand.is_empty()).then(|| conclusion.by_hand.clone().into())),
    ]
    .into_iter()
    .fold(json!({}), with)
}

/// The parts of a run that ended before it could look at each of them once more.
fn not_concluded<'a>(board: &'a Board, end: &End<'_>) -> Vec<(About<'a>, Value)> {
    let outcome = |has_begun| if has_begun && matches!(end, End::Abandoned) { "unknown" } else { "not_touched" };
    let told = |about: About<'_>, has_begun| json!({about.kind(): about.name(), "outcome": outcome(has_begun)});
    board.parts().map(|(about, has_begun)| (about, told(about, has_begun))).collect()
}

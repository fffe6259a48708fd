"""Holds the local ECS against boto3 and the aws CLI, which know nothing of gehen.

Prints one line per check and ends with a failure at the first that doesn't hold.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import boto3
import botocore
import botocore.config

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET_GROUP = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/api/0123456789abcdef"
BEHAVIOURS = ["bad=crash", "missing=missing"]
IMAGES = ["us-east-1/team/api:v1", "us-east-1/team/api:v2"]
CACHED = ["us-east-1/hub", "us-east-1/quay", "us-east-1/ROOT"]
DEPLOYER = "arn:aws:iam::123456789012:role/ci/deployer"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


def check(what, holds, seen=None):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    if not holds:
        if seen is not None:
            print(json.dumps(seen, indent=2, default=str))
        sys.exit(1)


class Server:
    def __enter__(self):
        command = [str(ROOT / "target/debug/local-ecs"), "--port", "0", "--speed", "fast"]
        for behaviour in BEHAVIOURS:
            command += ["--version-behaves", behaviour]
        for image in IMAGES:
            command += ["--ecr-image", image]
        for rule in CACHED:
            command += ["--pull-through-cache", rule]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.endpoint = re.search(r"AWS_ENDPOINT_URL=(\S+)", self.process.stdout.readline()).group(1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Shapes:
    """Compares every answer with botocore's model of it."""

    def __init__(self, client):
        self.model = client.meta.service_model
        self.unknown = set()
        self.looked_at = 0
        client.meta.events.register("before-parse." + self.model.service_name, self.look)

    def look(self, operation_model, response_dict, **_):
        # XML is read by the model itself; what it doesn't know there would be missing from what a check sees.
        if self.model.metadata["protocol"] != "query" and response_dict["status_code"] == 200:
            self.looked_at += 1
            if operation_model.output_shape is None:
                return
            self.compare(operation_model.output_shape, json.loads(response_dict["body"]), operation_model.name)

    def compare(self, shape, value, path):
        if value is None:
            self.unknown.add(path + " is null")
        elif shape.type_name == "structure":
            if not isinstance(value, dict):
                self.unknown.add(path + " is no structure")
                return
            for key, inner in value.items():
                if key in shape.members:
                    self.compare(shape.members[key], inner, path + "." + key)
                else:
                    self.unknown.add(path + "." + key)
        elif shape.type_name == "list":
            for inner in value:
                self.compare(shape.member, inner, path + "[]")
        elif shape.type_name == "map":
            for inner in value.values():
                self.compare(shape.value, inner, path + "{}")
        elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
            self.unknown.add(f"{path} = {value}")
        else:
            types = {
                "string": str, "boolean": bool, "integer": int, "long": int,
                "timestamp": (int, float), "double": (int, float), "float": (int, float),
            }
            if not isinstance(value, types[shape.type_name]) or (shape.type_name != "boolean" and isinstance(value, bool)):
                self.unknown.add(f"{path} is no {shape.type_name}")


def aws(server, *arguments, fails=False, service="ecs", **more):
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "cli", "AWS_SECRET_ACCESS_KEY": "cli", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "1", **more,
    }
    command = [sys.executable, "-m", "awscli", service, *arguments, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        check(f"aws {service} {' '.join(arguments)}", False, {"stdout": done.stdout, "stderr": done.stderr})
    return json.loads(done.stdout) if done.stdout.strip() and not fails else done.stderr


def definition(family, tag, **more):
    container = {
        "name": family, "image": f"registry.example.com/{family}:{tag}", "essential": True,
        "portMappings": [{"containerPort": 8080}], "environment": [{"name": "A", "value": "1"}],
    }
    return {
        "family": family, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "256", "memory": "512", "containerDefinitions": [container], **more,
    }


def create(ecs, name, definition_arn, count=2, **configuration):
    return ecs.create_service(
        cluster="staging", serviceName=name, taskDefinition=definition_arn, desiredCount=count,
        launchType="FARGATE", deploymentConfiguration=configuration,
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "DISABLED"}},
        loadBalancers=[{"targetGroupArn": TARGET_GROUP, "containerName": name, "containerPort": 8080}],
    )["service"]


def refused(ecs, name, call):
    try:
        call()
    except getattr(ecs.exceptions, name) as error:
        check(f"{name}: {error.response['Error']['Message']}", error.response["ResponseMetadata"]["HTTPStatusCode"] == 400)
    except botocore.exceptions.ClientError as error:
        check(f"{name}", False, error.response)
    else:
        check(f"{name} is raised", False)


def code_of(call):
    try:
        call()
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


def look(ecs, name):
    return ecs.describe_services(cluster="staging", services=[name])["services"][0]


def newest_deployment(ecs, name):
    """The ARN of the service deployment that began last, which a rollback of ECS's own goes on with."""
    return ecs.list_service_deployments(cluster="staging", service=name)["serviceDeployments"][0]["serviceDeploymentArn"]


def until(what, is_so, patience=15):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        seen = is_so()
        if seen:
            return seen
        time.sleep(0.02)
    check(what, False)


def connect(server, service, key="boto", secret="boto", token=None):
    return boto3.client(
        service, endpoint_url=server.endpoint, region_name="us-east-1",
        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token,
        # What the service refuses is to be refused by it, not by the client.
        config=botocore.config.Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def main():
    with Server() as server:
        ecs, ecr, events = connect(server, "ecs"), connect(server, "ecr"), connect(server, "events")
        shapes = [Shapes(ecs), Shapes(ecr), Shapes(events)]
        resources(ecs)
        rollout(server, ecs)
        tasks(ecs)
        refusals(ecs)
        breaker(ecs)
        pages(ecs)
        service_deployments(ecs)
        stopping(ecs)
        blue_green(server, ecs)
        registry(server, ecs, ecr)
        schedules(server, events)
        roles(server)
        deletion(server, ecs)
        unknown = sorted(key for one in shapes for key in one.unknown)
        looked_at = sum(one.looked_at for one in shapes)
        check(f"botocore's model knows every key of {looked_at} answers", not unknown, unknown)


def resources(ecs):
    cluster = ecs.create_cluster(clusterName="staging", tags=[{"key": "env", "value": "test"}])["cluster"]
    check("a cluster is created", cluster["status"] == "ACTIVE")
    described = ecs.describe_clusters(clusters=["staging", "none"], include=["TAGS"])
    check("a cluster is described with its tags", described["clusters"][0]["tags"] == [{"key": "env", "value": "test"}])
    check("a missing cluster is a failure", described["failures"][0]["reason"] == "MISSING")
    check("clusters are listed", ecs.list_clusters()["clusterArns"] == [cluster["clusterArn"]])
    tags = [{"key": "team", "value": "api"}]
    first = ecs.register_task_definition(**definition("api", "v1"), tags=tags)["taskDefinition"]
    check("a task definition is registered", first["revision"] == 1 and first["status"] == "ACTIVE")
    check("registeredAt is a time", abs(first["registeredAt"].timestamp() - time.time()) < 60, first["registeredAt"])
    described = ecs.describe_task_definition(taskDefinition="api", include=["TAGS"])
    check("its tags lie beside it", described["tags"] == tags)
    arn = first["taskDefinitionArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "more", "value": "x"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["team"])
    listed = ecs.list_tags_for_resource(resourceArn=arn)["tags"]
    check("tags round trip", listed == [{"key": "more", "value": "x"}], listed)
    check("families are listed", ecs.list_task_definition_families()["families"] == ["api"])


def rollout(server, ecs):
    service = create(ecs, "api", "api:1")
    check("a service begins with one deployment in progress", service["deployments"][0]["rolloutState"] == "IN_PROGRESS", service)
    ecs.get_waiter("services_stable").wait(
        cluster="staging", services=["api"], WaiterConfig={"Delay": 1, "MaxAttempts": 15})
    service = look(ecs, "api")
    check("the waiter ends with a completed deployment", service["deployments"][0]["rolloutState"] == "COMPLETED", service)
    aws(server, "register-task-definition", "--cli-input-json", json.dumps(definition("api", "v2")))
    began = time.monotonic()
    updated = aws(server, "update-service", "--cluster", "staging", "--service", "api", "--task-definition", "api:2")
    new, old = updated["service"]["deployments"]
    check("the CLI's update answers with PRIMARY and ACTIVE", (new["status"], old["status"]) == ("PRIMARY", "ACTIVE"), updated)
    check("the new one runs nothing yet", new["runningCount"] == 0 and new["rolloutState"] == "IN_PROGRESS", new)
    check("the old one runs and was completed", old["runningCount"] == 2 and old["rolloutState"] == "COMPLETED", old)
    aws(server, "wait", "services-stable", "--cluster", "staging", "--services", "api")
    took = time.monotonic() - began
    service = look(ecs, "api")
    check("aws ecs wait services-stable ends after the rollout", len(service["deployments"]) == 1
          and service["deployments"][0]["rolloutState"] == "COMPLETED" and service["runningCount"] == 2, service)
    check(f"and within reason ({took:.1f} s)", took < 40)
    check("the events tell of the steady state", service["events"][0]["message"].endswith("has reached a steady state."))


def tasks(ecs):
    running = ecs.list_tasks(cluster="staging", serviceName="api")["taskArns"]
    check("two tasks run", len(running) == 2)
    described = ecs.describe_tasks(cluster="staging", tasks=running + ["0" * 32])
    check("tasks are described", all(task["lastStatus"] == "RUNNING" for task in described["tasks"]))
    check("a missing task is a failure", described["failures"][0]["reason"] == "MISSING")
    deployment = look(ecs, "api")["deployments"][0]["id"]
    check("tasks know their deployment", all(task["startedBy"] == deployment for task in described["tasks"]))
    stopped = ecs.list_tasks(cluster="staging", serviceName="api", desiredStatus="STOPPED")["taskArns"]
    gone = ecs.describe_tasks(cluster="staging", tasks=stopped)["tasks"]
    check("stopped tasks say why", all(task["stopCode"] == "ServiceSchedulerInitiated" for task in gone) and len(gone) == 2)
    one = ecs.stop_task(cluster="staging", task=running[0], reason="by hand")["task"]
    check("a task can be stopped", one["desiredStatus"] == "STOPPED" and one["stopCode"] == "UserInitiated", one)
    ecs.get_waiter("tasks_stopped").wait(
        cluster="staging", tasks=[running[0]], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    ecs.get_waiter("services_stable").wait(
        cluster="staging", services=["api"], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    check("and is replaced", look(ecs, "api")["runningCount"] == 2)
    protected = ecs.update_task_protection(cluster="staging", tasks=[running[1]], protectionEnabled=True)
    check("a task can be protected", protected["protectedTasks"][0]["protectionEnabled"], protected)
    ecs.update_task_protection(cluster="staging", tasks=[running[1]], protectionEnabled=False)
    shown = ecs.get_task_protection(cluster="staging", tasks=[running[1]])
    check("and unprotected", not shown["protectedTasks"][0]["protectionEnabled"], shown)


def refusals(ecs):
    missing = ecs.describe_services(cluster="staging", services=["none"])["failures"]
    check("a missing service is a failure", missing[0]["reason"] == "MISSING")
    refused(ecs, "ClusterNotFoundException", lambda: ecs.describe_services(cluster="none", services=["api"]))
    refused(ecs, "ServiceNotFoundException", lambda: ecs.update_service(cluster="staging", service="none"))
    refused(ecs, "InvalidParameterException",
            lambda: ecs.describe_services(cluster="staging", services=[f"s{n}" for n in range(11)]))
    refused(ecs, "ClientException", lambda: ecs.describe_task_definition(taskDefinition="none"))
    refused(ecs, "InvalidParameterException",
            lambda: ecs.register_task_definition(**definition("api", "v1"), tags=[{"key": "aws:x", "value": "y"}]))
    ecs.register_task_definition(**definition("unused", "v1"))
    gone = ecs.deregister_task_definition(taskDefinition="unused:1")["taskDefinition"]
    check("a task definition can be deregistered", gone["status"] == "INACTIVE" and "deregisteredAt" in gone)
    refused(ecs, "ClientException",
            lambda: ecs.update_service(cluster="staging", service="api", taskDefinition="unused:1"))


def breaker(ecs):
    for rollback in (False, True):
        name = f"breaker-{str(rollback).lower()}"
        ecs.register_task_definition(**definition(name, "v1"))
        create(ecs, name, name, deploymentCircuitBreaker={"enable": True, "rollback": rollback})
        until("it completes", lambda: look(ecs, name)["deployments"][0]["rolloutState"] == "COMPLETED")
        ecs.register_task_definition(**definition(name, "missing"))
        ours = ecs.update_service(cluster="staging", service=name, taskDefinition=name)["service"]["deployments"][0]["id"]
        arn = newest_deployment(ecs, name)

        def ended():
            # With rollback, the failed deployment may have left DescribeServices between two looks.
            seen = describe_deployment(ecs, arn)
            return seen if seen["deploymentCircuitBreaker"]["status"] == "TRIGGERED" else None

        failed = until("the breaker trips", ended)
        check(f"the breaker trips (rollback {rollback})", "tasks failed to start" in failed["statusReason"], failed)
        if not rollback:
            primary = look(ecs, name)["deployments"][0]
            check("the failed deployment says why", primary["id"] == ours and primary["rolloutState"] == "FAILED"
                  and "tasks failed to start" in primary["rolloutStateReason"], primary)
        if rollback:
            def back():
                found = look(ecs, name)["deployments"]
                return found if len(found) == 1 and found[0]["rolloutState"] == "COMPLETED" else None

            [primary] = until("it goes back", back)
            check("a new PRIMARY runs the old task definition",
                  primary["taskDefinition"].endswith(":1") and primary["id"] != ours, primary)
        else:
            service = look(ecs, name)
            check("the old deployment keeps serving", service["deployments"][1]["runningCount"] == 2, service)
        stopped = ecs.list_tasks(cluster="staging", serviceName=name, desiredStatus="STOPPED")["taskArns"]
        found = ecs.describe_tasks(cluster="staging", tasks=stopped)["tasks"]
        reasons = [task["stoppedReason"] for task in found if task["startedBy"] == ours]
        failed = [reason for reason in reasons if reason.startswith("CannotPullContainerError")]
        # The breaker trips at the third; a task that it catches before that one's own failure goes with the deployment.
        ended = [reason for reason in reasons if reason.startswith("Scaling activity initiated by (deployment ")]
        check("the tasks say why", len(failed) >= 3 and len(failed) + len(ended) == len(reasons), reasons)


def pages(ecs):
    ecs.register_task_definition(**definition("many", "v1"))
    create(ecs, "many", "many", count=230)
    until("they start", lambda: look(ecs, "many")["runningCount"] == 230)
    listed = list(ecs.get_paginator("list_tasks").paginate(cluster="staging", serviceName="many"))
    sizes = [len(page["taskArns"]) for page in listed]
    check("tasks come by the hundred", sizes == [100, 100, 30], sizes)


def service_deployments(ecs):
    listed = ecs.list_service_deployments(cluster="staging", service="api")["serviceDeployments"]
    check("service deployments are listed", [one["status"] for one in listed] == ["SUCCESSFUL"] * 2, listed)
    described = ecs.describe_service_deployments(serviceDeploymentArns=[listed[0]["serviceDeploymentArn"]])
    revision = described["serviceDeployments"][0]["targetServiceRevision"]["arn"]
    revisions = ecs.describe_service_revisions(serviceRevisionArns=[revision])["serviceRevisions"]
    check("a revision leads to its task definition", revisions[0]["taskDefinition"].endswith("/api:2"), revisions)
    # Without a breaker, one whose image is missing goes on until it is stopped.
    ecs.register_task_definition(**definition("api", "missing"))
    ecs.update_service(cluster="staging", service="api", taskDefinition="api:3")
    current = look(ecs, "api")["currentServiceDeployment"]
    check("the service names the one that goes on", current == newest_deployment(ecs, "api"), current)
    ecs.stop_service_deployment(serviceDeploymentArn=current)

    def ended():
        found = ecs.describe_service_deployments(serviceDeploymentArns=[current])["serviceDeployments"][0]
        return found if found["status"] == "ROLLBACK_SUCCESSFUL" else None

    check("a service deployment can be stopped", until("it rolls back", ended) is not None)


def describe_deployment(ecs, arn):
    return ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]


def stopping(ecs):
    began = time.time()
    ecs.update_service(cluster="staging", service="api", taskDefinition="api:3")
    arn = newest_deployment(ecs, "api")
    for _ in range(2):
        stopped = ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")["serviceDeploymentArn"]
        check("stopping may be asked for again", stopped == arn, stopped)
    ended = until("it rolls back", lambda: (
        lambda seen: seen if seen["status"] == "ROLLBACK_SUCCESSFUL" else None)(describe_deployment(ecs, arn)))
    check("a stopped one says when and why", "stoppedAt" in ended and "by user" in ended["statusReason"], ended)
    refused(ecs, "ConflictException", lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn))
    refused(ecs, "InvalidParameterException",
            lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT"))
    refused(ecs, "ServiceDeploymentNotFoundException", lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn + "x"))
    since = ecs.list_service_deployments(cluster="staging", service="api", createdAt={"after": began})["serviceDeployments"]
    check("service deployments are found by their time", [one["serviceDeploymentArn"] for one in since] == [arn], since)
    before = ecs.list_service_deployments(
        cluster="staging", service="api", createdAt={"before": began}, status=["SUCCESSFUL"])["serviceDeployments"]
    check("and by time and status", [one["status"] for one in before] == ["SUCCESSFUL"] * 2, before)


def blue_green(server, ecs):
    for name, configuration in {
        "blue-green": {"strategy": "BLUE_GREEN"},
        "linear": {"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 33.5, "stepBakeTimeInMinutes": 1}},
        "canary": {"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0.5, "canaryBakeTimeInMinutes": 1}},
    }.items():
        ecs.register_task_definition(**definition(name, "v1"))
        create(ecs, name, name, bakeTimeInMinutes=30, **configuration)
        until("it completes", lambda: look(ecs, name)["deployments"][0]["rolloutState"] == "COMPLETED")
        ecs.register_task_definition(**definition(name, "v2"))
        if name == "linear":  # The CLI is to find it still baking.
            ecs.update_service(cluster="staging", service=name, deploymentConfiguration={"bakeTimeInMinutes": 100})
        aws(server, "update-service", "--cluster", "staging", "--service", name, "--task-definition", name)
        arn = newest_deployment(ecs, name)

        def bakes():
            seen = describe_deployment(ecs, arn)
            return seen if seen["lifecycleStage"] == "BAKE_TIME" else None

        baking = until("it bakes", bakes)
        check(f"{name}: while it bakes all traffic has moved",
              baking["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100, baking)
        service = look(ecs, name)
        check(f"{name}: and both versions run at full count, in progress",
              [one["runningCount"] for one in service["deployments"]] == [2, 2]
              and service["deployments"][0]["rolloutState"] == "IN_PROGRESS", service)
        if name == "linear":
            stopped = aws(server, "stop-service-deployment", "--service-deployment-arn", arn, "--stop-type", "ROLLBACK")
            check("aws ecs stop-service-deployment answers with what it stops",
                  stopped == {"serviceDeploymentArn": arn}, stopped)
            wanted = ("ROLLBACK_SUCCESSFUL", ":1")
        else:
            wanted = ("SUCCESSFUL", ":2")
        until("it ends", lambda: describe_deployment(ecs, arn)["status"] == wanted[0])
        service = look(ecs, name)
        check(f"{name}: {wanted[0]} leaves one version", len(service["deployments"]) == 1
              and service["taskDefinition"].endswith(wanted[1]), service)
    refused(ecs, "InvalidParameterException", lambda: ecs.update_service(
        cluster="staging", service="linear", deploymentConfiguration={"linearConfiguration": {"stepPercent": 1.0}}))


def registry(server, ecs, ecr):
    got = aws(server, "batch-get-image", "--repository-name", "team/api", "--image-ids", "imageTag=v1", "imageTag=none",
              service="ecr")
    [image], [failure] = got["images"], got["failures"]
    digest = image["imageId"]["imageDigest"]
    check("aws ecr batch-get-image finds an image", re.fullmatch("sha256:[0-9a-f]{64}", digest), got)
    check("and says what it doesn't find", failure["failureCode"] == "ImageNotFound", failure)
    by_digest = ecr.batch_get_image(
        registryId="123456789012", repositoryName="team/api", imageIds=[{"imageDigest": digest}])
    check("an image is found by its digest", by_digest["images"][0]["imageId"] == {"imageDigest": digest}, by_digest)
    refused(ecr, "RepositoryNotFoundException",
            lambda: ecr.batch_get_image(repositoryName="none", imageIds=[{"imageTag": "v1"}]))
    refused(ecr, "InvalidParameterException", lambda: ecr.batch_get_image(repositoryName="team/api", imageIds=[]))
    refused(ecr, "InvalidParameterException",
            lambda: ecr.batch_get_image(repositoryName="team/api", imageIds=[{"imageTag": "v1"}] * 101))
    error = aws(server, "batch-get-image", "--repository-name", "none", "--image-ids", "imageTag=v1",
                fails=True, service="ecr")
    check("the CLI shows an error's type", "(RepositoryNotFoundException)" in error, error)
    pages = list(ecr.get_paginator("describe_pull_through_cache_rules").paginate(PaginationConfig={"PageSize": 2}))
    prefixes = [[rule["ecrRepositoryPrefix"] for rule in page["pullThroughCacheRules"]] for page in pages]
    check("cache rules come in pages", prefixes == [["ROOT", "hub"], ["quay"]], prefixes)
    one = aws(server, "describe-pull-through-cache-rules", "--ecr-repository-prefixes", "hub", service="ecr")
    check("aws ecr describe-pull-through-cache-rules finds one by its prefix",
          [rule["ecrRepositoryPrefix"] for rule in one["pullThroughCacheRules"]] == ["hub"], one)
    refused(ecr, "PullThroughCacheRuleNotFoundException",
            lambda: ecr.describe_pull_through_cache_rules(ecrRepositoryPrefixes=["none"]))
    pulling = definition("pulling", "v1")
    pulling["containerDefinitions"][0]["image"] = f"{REGISTRY}/team/api:v1"
    ecs.register_task_definition(**pulling)
    create(ecs, "pulling", "pulling", count=1)
    until("it runs", lambda: look(ecs, "pulling")["runningCount"] == 1)
    check("a task runs whose image lies in the registry", True)


def schedules(server, events):
    arn = events.put_rule(Name="nightly", ScheduleExpression="cron(0 3 * * ? *)")["RuleArn"]
    check("a rule is made", arn == "arn:aws:events:us-east-1:123456789012:rule/nightly", arn)
    described = aws(server, "describe-rule", "--name", "nightly", service="events")
    check("aws events describe-rule shows it", (described["State"], described["EventBusName"]) == ("ENABLED", "default"))

    def target(name, revision):
        vpc = {"Subnets": ["subnet-1"], "SecurityGroups": ["sg-1"], "AssignPublicIp": "DISABLED"}
        return {
            "Id": name, "Arn": "arn:aws:ecs:us-east-1:123456789012:cluster/staging",
            "RoleArn": "arn:aws:iam::123456789012:role/ecsEventsRole", "Input": json.dumps({"containerOverrides": []}),
            "EcsParameters": {
                "TaskDefinitionArn": f"arn:aws:ecs:us-east-1:123456789012:task-definition/api:{revision}",
                "TaskCount": 1, "LaunchType": "FARGATE", "NetworkConfiguration": {"awsvpcConfiguration": vpc},
                "PropagateTags": "TASK_DEFINITION",
            },
        }

    put = events.put_targets(Rule="nightly", Targets=[target("one", 1), target("two", 1), target("three", 1)])
    check("targets are put", put["FailedEntryCount"] == 0 and put["FailedEntries"] == [], put)
    put = aws(server, "put-targets", "--rule", "nightly", "--targets", json.dumps([target("two", 2)]), service="events")
    check("aws events put-targets replaces one", put["FailedEntryCount"] == 0, put)
    pages = [events.list_targets_by_rule(Rule="nightly", Limit=2)]
    pages.append(events.list_targets_by_rule(Rule="nightly", NextToken=pages[0]["NextToken"]))
    listed = [entry for page in pages for entry in page["Targets"]]
    check("targets come in pages, whole and in order",
          listed == [target("one", 1), target("two", 2), target("three", 1)] and "NextToken" not in pages[1], listed)
    by_cli = aws(server, "list-targets-by-rule", "--rule", "nightly", service="events")["Targets"]
    check("aws events list-targets-by-rule lists them all", by_cli == listed, by_cli)
    refused(events, "ResourceNotFoundException", lambda: events.list_targets_by_rule(Rule="none"))
    refused(events, "ResourceNotFoundException",
            lambda: events.put_targets(Rule="nightly", EventBusName="none", Targets=[target("one", 1)]))
    refused(events, "LimitExceededException",
            lambda: events.put_targets(Rule="nightly", Targets=[target(f"more-{n}", 1) for n in range(3)]))
    code = code_of(lambda: events.put_targets(Rule="nightly", Targets=[target(f"more-{n}", 1) for n in range(11)]))
    check("eleven targets in one request are refused", code == "ValidationException", code)
    events.create_event_bus(Name="audit")
    events.put_rule(Name="nightly", EventBusName="audit", EventPattern=json.dumps({"source": ["shop"]}))
    listed = events.list_targets_by_rule(Rule="nightly", EventBusName="audit")["Targets"]
    check("a rule of another bus is another rule", listed == [], listed)
    events.remove_targets(Rule="nightly", Ids=["one", "two", "three"])
    events.delete_rule(Name="nightly")
    refused(events, "ResourceNotFoundException", lambda: events.describe_rule(Name="nightly"))


def roles(server):
    sts = connect(server, "sts")
    check("a user is told who it is", sts.get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/local")
    given = sts.assume_role(RoleArn=DEPLOYER, RoleSessionName="boto", DurationSeconds=900)
    session = given["Credentials"]
    lasts = session["Expiration"].timestamp() - time.time()
    check("a role is assumed for 15 minutes", 840 < lasts <= 901, given)
    keys = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
    arn = "arn:aws:sts::123456789012:assumed-role/deployer/boto"
    check("its session is told who it is", connect(server, "sts", *keys).get_caller_identity()["Arn"] == arn)
    check("and may list clusters", connect(server, "ecs", *keys).list_clusters()["clusterArns"] != [])
    code = code_of(connect(server, "ecs", keys[0], keys[1], "another token").list_clusters)
    check("which takes the session's own token", code == "UnrecognizedClientException", code)
    code = code_of(lambda: sts.assume_role(RoleArn=DEPLOYER, RoleSessionName="boto", DurationSeconds=60))
    check("a session of a minute is refused", code == "ValidationError", code)
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config"
        config.write_text(f"[profile ci]\nrole_arn = {DEPLOYER}\nrole_session_name = cli\n"
                          "credential_source = Environment\n")
        who = aws(server, "get-caller-identity", "--profile", "ci", service="sts",
                  # The CLI keeps the session in the home folder, and the next server wouldn't know it.
                  AWS_CONFIG_FILE=str(config), HOME=folder)
        check("the CLI assumes the role of a profile", who["Arn"] == arn.replace("boto", "cli"), who)


def deletion(server, ecs):
    ecs.delete_service(cluster="staging", service="many", force=True)
    ecs.get_waiter("services_inactive").wait(
        cluster="staging", services=["many"], WaiterConfig={"Delay": 1, "MaxAttempts": 15})
    check("a deleted service becomes INACTIVE", look(ecs, "many")["status"] == "INACTIVE")
    refused(ecs, "ServiceNotActiveException", lambda: ecs.update_service(cluster="staging", service="many"))
    error = aws(server, "describe-services", "--cluster", "none", "--services", "api", fails=True)
    check("the CLI shows an error's type", "(ClusterNotFoundException)" in error, error)


if __name__ == "__main__":
    main()

//! What becomes of a task definition: its images change, and nothing else does.

use local_ecs::{Behaviour, LocalEcs, Settings, service};
use serde_json::{Value, json};

use crate::support::{NEW, OLD, SHORT, bodies, ecs, ecs_with, gehen_yml, gehen_yml_with};

/// A container with this name and image, and the defaults that ECS would show for what it leaves out.
fn container(name: &str, image: &str) -> Value {
    json!({
        "name": name, "image": image, "cpu": 0, "essential": name == "api", "environment": [], "mountPoints": [],
        "volumesFrom": [], "systemControls": [],
        "portMappings": if name == "api" { json!([{"containerPort": 8080, "hostPort": 8080, "protocol": "tcp"}]) } else { json!([]) },
    })
}

/// The registration of family `api` with these containers and nothing left out.
fn definition(containers: &[Value]) -> Value {
    json!({
        "family": "api", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": containers, "volumes": [], "placementConstraints": [],
    })
}

/// The one registration that gehen sent.
fn registered(ecs: &LocalEcs) -> Value {
    let [body] = <[Value; 1]>::try_from(bodies(ecs, "RegisterTaskDefinition")).expect("one revision is registered");
    body
}

#[test]
fn every_form_of_an_image_gets_the_new_tag() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let images = [
        ("api:01d0000".to_owned(), "api:ae30000"),
        ("api".to_owned(), "api:ae30000"),
        (format!("api@{digest}"), "api:ae30000"),
        (format!("api:01d0000@{digest}"), "api:ae30000"),
        ("team/api".to_owned(), "team/api:ae30000"),
        ("registry.example.com:5000/api".to_owned(), "registry.example.com:5000/api:ae30000"),
        ("registry.example.com:5000/team/api:01d0000".to_owned(), "registry.example.com:5000/team/api:ae30000"),
        (format!("registry.example.com:5000/api@{digest}"), "registry.example.com:5000/api:ae30000"),
        (format!("localhost:5000/team/api:latest@{digest}"), "localhost:5000/team/api:ae30000"),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/api:v1.2.3".to_owned(),
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/api:ae30000",
        ),
        ("api:ae30000".to_owned(), "api:ae30000"),
    ];
    let name = |index: usize| if index == 0 { "api".to_owned() } else { format!("sidecar-{index}") };
    let containers: Vec<_> =
        images.iter().enumerate().map(|(index, (from, _))| container(&name(index), from)).collect();
    let ecs = ecs([service("api").task_definition(definition(&containers))]);
    let names: Vec<_> = (0..images.len()).map(name).collect();
    let chosen = format!("containers: [{}]", names.join(", "));
    gehen_yml_with(&ecs, "", &[("api", &chosen)]).deploy(NEW).exits(0);
    let expected: Vec<_> = images.iter().enumerate().map(|(index, (_, to))| container(&name(index), to)).collect();
    assert_eq!(registered(&ecs), definition(&expected));
}

#[test]
fn the_tag_is_the_git_sha_as_it_was_typed() {
    let sha = "AE30000AE30000AE30000AE30000AE30000AE300";
    let ecs = ecs([service("api").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).deploy(sha).exits(0);
    assert_eq!(registered(&ecs)["containerDefinitions"][0]["image"], format!("registry.example.com/api:{sha}"));
    assert_eq!(ecs.runs("api"), sha);
}

/// A registration with every member that API_RegisterTaskDefinition and API_ContainerDefinition list, with members that
/// nobody has invented yet, and with values that are easy to spoil on the way.
fn rich(image: &str, sidecar_image: &str) -> Value {
    json!({
        "family": "api",
        "taskRoleArn": "arn:aws:iam::123456789012:role/api-task",
        "executionRoleArn": "arn:aws:iam::123456789012:role/api-execution",
        "networkMode": "awsvpc",
        "containerDefinitions": [rich_container(image), container("proxy", sidecar_image)],
        "volumes": [
            {"name": "data", "efsVolumeConfiguration": {
                "fileSystemId": "fs-0123456789abcdef0", "rootDirectory": "/", "transitEncryption": "ENABLED",
                "transitEncryptionPort": 2999, "authorizationConfig": {"accessPointId": "fsap-1", "iam": "ENABLED"},
            }},
            {"name": "scratch", "host": {}},
            {"name": "local", "dockerVolumeConfiguration": {
                "scope": "shared", "autoprovision": true, "driver": "local",
                "driverOpts": {"type": "nfs"}, "labels": {"keep": "me"},
            }},
            {"name": "late", "configuredAtLaunch": true},
        ],
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.instance-type =~ t3.*"}],
        "requiresCompatibilities": ["FARGATE", "EC2"],
        "cpu": "1 vCPU",
        "memory": "2 GB",
        "tags": [{"key": "team", "value": "größe"}, {"key": "empty", "value": ""}, {"key": "awsome", "value": "1"}],
        "pidMode": "task",
        "ipcMode": "none",
        "proxyConfiguration": {
            "type": "APPMESH", "containerName": "proxy", "properties": [{"name": "IgnoredUID", "value": "1337"}],
        },
        "inferenceAccelerators": [{"deviceName": "device_1", "deviceType": "eia2.medium"}],
        "ephemeralStorage": {"sizeInGiB": 100},
        "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
        "enableFaultInjection": true,
        "inventedIn2031": {
            "nested": [{"deep": [1, -2, 0.1, 1.5e300, null, true, "x"]}], "big": 18_446_744_073_709_551_615_u64,
            "small": i64::MIN, "": {}, "image": "not:an-image-of-a-container",
        },
        "inventedFlag": false,
        "inventedList": [],
    })
}

fn rich_container(image: &str) -> Value {
    let mut container = json!({
        "name": "api",
        "image": image,
        "repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:us-east-1:123456789012:secret:hub"},
        "cpu": 256,
        "memory": 512,
        "memoryReservation": 256,
        "links": ["proxy:p"],
        "portMappings": [{
            "containerPort": 8080, "hostPort": 8080, "protocol": "tcp", "name": "http", "appProtocol": "http2",
            "containerPortRange": "9000-9010",
        }],
        "essential": true,
        "restartPolicy": {"enabled": true, "ignoredExitCodes": [0, 137], "restartAttemptPeriod": 60},
        "entryPoint": ["/bin/sh", "-c"],
        "command": ["exec /api \"$@\" 'quoted' \\ back\tslash"],
        "environment": [
            {"name": "IMAGE", "value": "api:01d0000"},
            {"name": "ODD", "value": "a\u{2028}b\u{0}c\u{1f980}\r\n</script>"},
            {"name": "EMPTY", "value": ""},
        ],
        "environmentFiles": [{"value": "arn:aws:s3:::bucket/api.env", "type": "s3"}],
        "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": true}],
        "volumesFrom": [{"sourceContainer": "proxy", "readOnly": false}],
        "linuxParameters": {
            "capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]},
            "devices": [{"hostPath": "/dev/fuse", "containerPath": "/dev/fuse", "permissions": ["read", "write"]}],
            "initProcessEnabled": true, "sharedMemorySize": 64, "maxSwap": 0, "swappiness": 60,
            "tmpfs": [{"containerPath": "/tmp", "size": 128, "mountOptions": ["noexec"]}],
        },
    });
    let more = json!({
        "secrets": [{"name": "TOKEN", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/token"}],
        "dependsOn": [{"containerName": "proxy", "condition": "START"}],
        "startTimeout": 120,
        "stopTimeout": 30,
        "versionConsistency": "disabled",
        "hostname": "api.local",
        "user": "1000:1000",
        "workingDirectory": "/srv",
        "disableNetworking": false,
        "privileged": false,
        "readonlyRootFilesystem": true,
        "dnsServers": ["10.0.0.2"],
        "dnsSearchDomains": ["local"],
        "extraHosts": [{"hostname": "db", "ipAddress": "10.0.0.3"}],
        "dockerSecurityOptions": ["no-new-privileges"],
        "interactive": false,
        "pseudoTerminal": false,
        "dockerLabels": {"com.example.version": "01d0000"},
        "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": "/ecs/api", "awslogs-region": "us-east-1", "mode": "non-blocking"},
            "secretOptions": [{"name": "apikey", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/log"}],
        },
        "healthCheck": {
            "command": ["CMD-SHELL", "curl -f http://localhost:8080/ping || exit 1"],
            "interval": 10, "timeout": 2, "retries": 5, "startPeriod": 15,
        },
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
        "resourceRequirements": [{"type": "GPU", "value": "1"}],
        "firelensConfiguration": {"type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}},
        "credentialSpecs": ["credentialspecdomainless:arn:aws:s3:::bucket/spec.json"],
        "inventedIn2031": {"image": "also:not-one", "list": [[], {}, 2.5]},
    });
    let more = more.as_object().expect("it is written as an object").clone();
    container.as_object_mut().expect("it is written as an object").extend(more);
    container
}

#[test]
fn every_field_is_kept_invented_ones_too() {
    let ecs = ecs_with(
        Settings { system_tags: true, ..Settings::fast() },
        [service("api").task_definition(rich("registry.example.com:5000/api:01d0000", "envoy@sha256:ab"))],
    );
    gehen_yml_with(&ecs, "", &[("api", "containers: [api, proxy]")]).deploy(NEW).exits(0);
    assert_eq!(registered(&ecs), rich("registry.example.com:5000/api:ae30000", "envoy:ae30000"));
}

#[test]
fn fields_are_kept_from_one_deploy_to_the_next() {
    let ecs = ecs([service("api").task_definition(rich("api:01d0000", "envoy:01d0000"))]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    for version in [NEW, "abcdef1", OLD] {
        gehen.deploy(version).exits(0);
        let last = bodies(&ecs, "RegisterTaskDefinition").pop().expect("a revision is registered");
        assert_eq!(last, rich(&format!("api:{version}"), &format!("envoy:{version}")));
    }
    assert_eq!(ecs.task_definition_of("api"), "api:4");
}

#[test]
fn tags_that_aws_keeps_for_itself_are_not_sent() {
    let ecs = ecs_with(Settings { system_tags: true, ..Settings::fast() }, [service("api").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0);
    assert_eq!(registered(&ecs).get("tags"), None);
}

#[test]
fn all_containers_change_and_the_user_reads_how() {
    let before = [container("api", "api:01d0000"), container("proxy", "proxy:01d0000")];
    let ecs = ecs([service("api").task_definition(definition(&before))]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says("api:01d0000").says("api:ae30000").says("proxy:01d0000").says("proxy:ae30000");
    let after = [container("api", "api:ae30000"), container("proxy", "proxy:ae30000")];
    assert_eq!(registered(&ecs), definition(&after));
}

#[test]
fn the_running_version_is_deployed_again_without_a_new_revision() {
    let ecs = ecs([service("api").running(NEW)]);
    let before = ecs.view(|view| view.deployment_of("api"));
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0);
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
    assert_eq!(bodies(&ecs, "UpdateService")[0]["forceNewDeployment"], true);
    assert_ne!(ecs.view(|view| view.deployment_of("api")), before);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn one_image_at_another_version_is_enough_for_a_new_revision() {
    let before = [container("api", "api:ae30000"), container("proxy", "proxy")];
    let ecs = ecs([service("api").task_definition(definition(&before))]);
    gehen_yml_with(&ecs, "", &[("api", "containers: [api, proxy]")]).deploy(NEW).exits(0);
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
}

#[test]
fn the_revision_that_runs_is_copied_not_the_newest() {
    let ecs = ecs([service("api").task_definition(definition(&[container("api", "api:01d0000")]))]);
    let mut newer = definition(&[container("api", "api:untested")]);
    newer["cpu"] = json!("4096");
    ecs.call("us-east-1", "RegisterTaskDefinition", newer).expect("somebody else registers a revision");
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0);
    assert_eq!(ecs.task_definition_of("api"), "api:3");
    assert_eq!(registered(&ecs), definition(&[container("api", "api:ae30000")]));
}

#[test]
fn an_update_names_the_task_definition_and_nothing_that_others_own() {
    let ecs = ecs([service("api").running(OLD).desired(3), service("agent").running(OLD).daemon()]);
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    let gehen = gehen_yml(&ecs, SHORT, &["api", "agent"]);
    gehen.deploy(NEW).exits(0);
    gehen.deploy("bad0000").exits(1);
    assert_eq!(ecs.runs("api"), NEW);
    let arn = |resource: &str| format!("arn:aws:ecs:us-east-1:123456789012:{resource}");
    let update = |service: &str, revision: &str| {
        json!({
            "cluster": arn("cluster/staging"), "service": service, "forceNewDeployment": true,
            "taskDefinition": arn(&format!("task-definition/{revision}")),
        })
    };
    assert_eq!(
        bodies(&ecs, "UpdateService"),
        [update("api", "api:2"), update("agent", "agent:2"), update("api", "api:3"), update("api", "api:2")]
    );
}

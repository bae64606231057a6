//! The files for containers in docs: Compose and Kubernetes take them, and Mika and HAProxy the configs in them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::http::try_get;
use crate::harness::{Mika, free_port, poll, python_tool};

/// How long HAProxy may take to start, and to find out that a node has gone: two checks, two seconds apart.
const NOTICED: Duration = Duration::from_secs(30);

const TARGET: &str =
    "/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=-MK0001-000000000001&port=6881&left=0";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

/// The documents of a YAML file.
fn documents(name: &str) -> Vec<Value> {
    let script =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = python_tool("python")
        .args(["-c", script])
        .arg(path(name))
        .output()
        .expect("Python starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{name}: {error}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// What a checker says of a file.
fn checked(checker: &[&str], file: &Path) -> Output {
    python_tool(checker[0])
        .args(&checker[1..])
        .arg(file)
        .output()
        .expect("it starts")
}

/// The checker takes the file, and refuses it with `wrong` in place of `right`.
fn is_taken(checker: &[&str], name: &str, right: &str, wrong: &str) {
    let output = checked(checker, &path(name));
    assert!(output.status.success(), "{name}: {output:?}");
    let text = fs::read_to_string(path(name)).expect("a file of docs");
    assert!(text.contains(right), "{name}: {right}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    fs::write(&file, text.replace(right, wrong)).expect("a file");
    let output = checked(checker, &file);
    assert!(!output.status.success(), "{wrong} is not noticed in {name}");
}

#[test]
fn compose_files_have_no_key_that_compose_does_not_know() {
    let checker = [
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ];
    for name in ["compose.yml", "compose-cluster.yml"] {
        is_taken(&checker, name, "stop_grace_period:", "stop_grace_time:");
    }
}

#[test]
fn kubernetes_takes_its_file() {
    let checker = ["kubernetes-validate", "--strict"];
    for (right, wrong) in [
        (
            "terminationGracePeriodSeconds: 60",
            "terminationGraceSeconds: 60",
        ),
        ("maxUnavailable: 1", "maxUnavailable: [1]"),
        ("readinessProbe:", "readyProbe:"),
    ] {
        is_taken(&checker, "kubernetes.yml", right, wrong);
    }
}

/// `mika --check` of a config, with variables of the environment.
fn check_config(config: &str, variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config.json"), config).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_mika"))
        .current_dir(folder.path())
        .args(["--config", "config.json", "--check"])
        .envs(variables.iter().copied())
        .output()
        .expect("mika starts")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The value that Compose puts in place of `${NAME:?…}`.
fn with_password(text: &str) -> String {
    let (before, rest) = text.split_once("${").expect("a variable");
    let (_, after) = rest.split_once('}').expect("its end");
    format!("{before}password{after}")
}

#[test]
fn mika_takes_the_configs_for_containers() {
    let mut found = Vec::new();
    for (name, service) in [("compose.yml", "mika"), ("compose-cluster.yml", "mika-a")] {
        let file = &documents(name)[0];
        let environment = &file["services"][service]["environment"];
        found.push((
            name,
            text(&file["configs"]["mika"]["content"]).to_owned(),
            with_password(text(&environment["MIKA_STORAGE_URL"])),
            text(&environment["MIKA_CACHE_URL"]).to_owned(),
        ));
    }
    let objects = documents("kubernetes.yml");
    let of_kind = |kind: &str| {
        let mut objects = objects.iter();
        objects.find(|it| it["kind"] == kind).expect("an object")
    };
    let secret = &of_kind("Secret")["stringData"];
    found.push((
        "kubernetes.yml",
        text(&of_kind("ConfigMap")["data"]["config.json"]).to_owned(),
        text(&secret["MIKA_STORAGE_URL"]).to_owned(),
        text(&secret["MIKA_CACHE_URL"]).to_owned(),
    ));
    for (name, config, storage, cache) in found {
        let variables = [("MIKA_STORAGE_URL", &*storage), ("MIKA_CACHE_URL", &*cache)];
        let output = check_config(&config, &variables);
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(
            !check_config(&config, &[]).status.success(),
            "{name}: no URLs"
        );
    }
}

/// What the StatefulSet names is there: config, secrets, ports, and the folder of the spill file.
#[test]
fn the_pods_have_what_their_config_names() {
    let objects = documents("kubernetes.yml");
    let set = objects.iter().find(|it| it["kind"] == "StatefulSet");
    let pod = &set.expect("a StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let folders: Vec<&str> = mounts.iter().map(|it| text(&it["mountPath"])).collect();
    let config = objects.iter().find(|it| it["kind"] == "ConfigMap");
    let config = text(&config.expect("a ConfigMap")["data"]["config.json"]);
    let config: Value = serde_json::from_str(config).expect("JSON");
    for file in [&config["journal"]["spill"], &config["udp"]["secret"]] {
        let folder = Path::new(text(file)).parent().and_then(Path::to_str);
        assert!(folders.contains(&folder.expect("a folder")), "{file}");
    }
    assert_eq!(
        container["args"],
        json!(["-config", "/etc/mika/config.json"])
    );
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({ "path": "/scrape", "port": "http" })
        );
    }
}

/// HAProxy with the config of compose-cluster.yml.
struct Balancer {
    process: Child,
    listen: SocketAddr,
    _folder: TempDir,
}

// === impl Balancer ===

impl Balancer {
    /// In front of these nodes, in place of those that have names among containers.
    fn start(nodes: &[SocketAddr; 3]) -> Self {
        let file = &documents("compose-cluster.yml")[0];
        let config = text(&file["configs"]["haproxy"]["content"]);
        let listen = free_port();
        let mut config = config
            .replace("bind :34000", &format!("bind {listen}"))
            .replace("maxconn 30000", "maxconn 100")
            // The name server of containers.
            .replace(" resolvers docker", "");
        for (name, node) in ["mika-a", "mika-b", "mika-c"].iter().zip(nodes) {
            let server = format!("{name}:34000");
            assert!(config.contains(&server), "{config}");
            config = config.replace(&server, &node.to_string());
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("haproxy.cfg");
        fs::write(&path, config).expect("its config");
        let process = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        Self {
            process,
            listen,
            _folder: folder,
        }
    }

    /// Whether an announce through it is answered.
    fn answers(&self) -> bool {
        try_get(self.listen, TARGET).is_ok_and(|reply| reply.failure().is_none())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn haproxy_sends_announces_to_the_nodes_that_answer_a_scrape() {
    let file = &documents("compose-cluster.yml")[0];
    let config = text(&file["configs"]["mika"]["content"]);
    let mut http: Value = serde_json::from_str(config).expect("JSON");
    let mut http = http["http"].take();
    http["trusted_proxies"] = json!(["127.0.0.1"]);
    let config = json!({ "mode": "public", "http": http });
    let [mut a, mut b] = [(); 2].map(|()| Mika::start(&config));
    // The third never runs.
    let balancer = Balancer::start(&[a.http(), b.http(), free_port()]);
    poll(NOTICED, "it passes announces on", || balancer.answers());
    let always_answers = |what: &str| {
        let mut in_a_row = 0;
        poll(NOTICED, what, || {
            in_a_row = if balancer.answers() { in_a_row + 1 } else { 0 };
            in_a_row == 20
        });
    };
    always_answers("no announce goes to the node that does not run");
    a.kill9();
    always_answers("no announce goes to the node that was killed");
    a.run();
    b.kill9();
    always_answers("the node that is back is used");
    assert_eq!(a.stop(), 0);
}

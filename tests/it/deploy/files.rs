//! The image, the manifests and the units name paths, commands and secrets that fit each other and this program.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{list, path, said, text, yaml};
use crate::certificates::Authority;

const PROGRAM: &str = "/usr/local/bin/ayova";
const CONFIG: &str = "/etc/ayova/ayova.yaml";

/// Where the pod has its certificate for callbacks.
const CERTIFICATE: &str = "/run/secrets/callbacks";

/// Seconds that remain after `shutdown.grace` for the store and the last answers.
const CLOSING_S: u64 = 6;

/// The instructions of the Dockerfile, continued lines joined.
fn dockerfile() -> Vec<(String, String)> {
    let text = text("Dockerfile");
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.trim().split_once(' '));
    instructions.map(|(word, rest)| (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// What follows an instruction that is there once, from the last stage.
fn instruction(word: &str) -> String {
    let all = dockerfile();
    let last_stage = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    let mut found = all[last_stage..].iter().filter(|(name, _)| name == word);
    let (_, rest) = found.next().unwrap_or_else(|| panic!("the image has no {word}"));
    assert!(found.next().is_none(), "two {word}");
    rest.clone()
}

fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: a form that needs a shell: {error}"))
}

fn ayova(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ayova"));
    let output = command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_stages_of_the_image_fit_each_other() {
    let all = dockerfile();
    let stages: Vec<_> = all.iter().filter(|(word, _)| word == "FROM").map(|(_, from)| from.as_str()).collect();
    // One Debian for both, since the program brings no C library of its own.
    assert_eq!(stages, ["rust:${RUST}-bookworm AS build", "gcr.io/distroless/cc-debian12:nonroot"]);
    let argument = |name: &str| {
        let found = all.iter().find_map(|(word, rest)| rest.strip_prefix(name).filter(|_| word == "ARG"));
        found.unwrap_or_else(|| panic!("no ARG {name}")).to_owned()
    };
    let asked =
        text("Cargo.toml").lines().find_map(|line| Some(line.strip_prefix("rust-version = ")?.to_owned())).unwrap();
    let minor = |version: &str| version.trim_matches('"').split('.').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(minor(&argument("RUST=")) >= minor(&asked));
    assert_eq!(argument("FEATURES="), "otlp");
    let runs: Vec<_> = all.iter().filter(|(word, _)| word == "RUN").map(|(_, run)| run.as_str()).collect();
    assert_eq!(runs.len(), 1, "what else is run is not run by .ci/run: {runs:?}");
    assert!(runs[0].ends_with("FEATURES=\"${FEATURES}\" deploy/build.sh /image"), "{runs:?}");
    let script = text("deploy/build.sh");
    assert!(script.contains("--features \"${FEATURES-otlp}\"") && script.contains("--locked --release"));
    let copies = all.iter().filter(|(word, rest)| word == "COPY" && rest != ". .");
    for (_, copy) in copies {
        let from = copy.split(' ').rev().nth(1).unwrap().trim_end_matches('/');
        assert!(copy.starts_with("--from=build "), "{copy}");
        let made = from.strip_prefix("/image").unwrap();
        assert!(script.contains(&format!("\"$folder{made}")), "deploy/build.sh makes no {from}");
    }
    let ci = text(".ci/run");
    assert!(ci.contains("deploy/build.sh target/image") && ci.contains("deploy/try.sh target/image"));
}

#[test]
fn the_image_starts_what_there_is_as_nobody() {
    let (program, start) = (words(&instruction("ENTRYPOINT")), words(&instruction("CMD")));
    assert_eq!((program, start), (vec![PROGRAM.to_owned()], ["run", "--config", CONFIG].map(str::to_owned).to_vec()));
    assert!(text("deploy/build.sh").contains(&format!("\"$folder{PROGRAM}\"")));
    let (_, check) =
        instruction("HEALTHCHECK").split_once(" CMD ").map(|(how, what)| (how.to_owned(), words(what))).unwrap();
    assert_eq!(check, [PROGRAM, "healthcheck"]);
    assert!(ayova(&["healthcheck", "--help"]).0 && ayova(&["run", "--config", CONFIG, "--help"]).0);
    let user = instruction("USER");
    assert!(
        user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)),
        "kubelets believe numbers only: {user}"
    );
    assert!(instruction("VOLUME").contains("/data"));
    assert_eq!(instruction("EXPOSE"), "8080 8443");
    let given = dockerfile().into_iter().filter(|(word, _)| ["ARG", "ENV"].contains(&word.as_str())).count();
    assert_eq!(given, 2, "RUST and FEATURES; settings and secrets come in when it runs");
}

/// Fails unless `ayova check` takes a configuration whose secrets lie in a folder.
fn check(name: &str, config: &str, secrets: &str) {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, value: &str| std::fs::write(folder.path().join(name), value).unwrap();
    write("client-id", "client\n");
    write("client-secret", "secret\n");
    write("private-key.pem", &text("config/sandbox-key.pem"));
    write("callback-secret", &"a1b2c3d4".repeat(8));
    write("webhook-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=\n");
    assert!(config.contains(&format!("${{file:{secrets}/")), "{name} has no secrets in {secrets}");
    Authority::new().issue_files(folder.path(), "tls", &["pay.example.com"]);
    let here = folder.path().to_str().unwrap();
    write("ayova.yaml", &config.replace(CERTIFICATE, here).replace(secrets, here));
    let file = folder.path().join("ayova.yaml");
    let (is_good, problems) = ayova(&["check", "--config", file.to_str().unwrap()]);
    assert!(is_good, "{name}: {problems}");
}

/// The files below a folder that a configuration takes secrets from.
fn secrets<'a>(config: &'a str, folder: &'a str) -> impl Iterator<Item = &'a str> {
    let opening = format!("${{file:{folder}/");
    let names = config.split("${file:").skip(1).map(|rest| rest.split('}').next().unwrap());
    let names: Vec<_> =
        names.map(|file| file.strip_prefix(&opening[7..]).unwrap_or_else(|| panic!("{file}"))).collect();
    assert!(names.len() >= 3);
    names.into_iter()
}

/// `30s` as seconds.
fn seconds(duration: &str) -> u64 {
    duration.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{duration}"))
}

/// The default of `shutdown.grace`, which none of these configurations changes.
fn grace_s(config: &str) -> u64 {
    let of = |text: &str| text.lines().find_map(|line| line.trim().strip_prefix("grace: ").map(seconds));
    let default = of(&text("config/example.yaml")).unwrap();
    assert!(of(config).is_none_or(|grace| grace == default));
    default
}

#[test]
fn the_sidecar_gets_what_its_configuration_names() {
    let config = yaml("deploy/kubernetes/config.yaml").remove(0);
    let ours = said(&config, "/data/ayova.yaml");
    check("deploy/kubernetes/config.yaml", ours, "/run/secrets/ayova");
    let app = yaml("deploy/kubernetes/app.yaml");
    let pod = &app[0]["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!(said(sidecar, "/restartPolicy"), "Always", "without it, it is no sidecar");
    for probe in ["startupProbe", "readinessProbe"] {
        assert_eq!(sidecar[probe]["exec"]["command"], serde_json::json!([PROGRAM, "healthcheck"]));
        // More than `ayova healthcheck` waits itself, so that its own words reach the event.
        assert!(sidecar[probe]["timeoutSeconds"].as_u64().unwrap() > 3);
    }
    let living = &sidecar["livenessProbe"];
    // Readiness would restart it for a full disk.
    assert_eq!(living["exec"]["command"], serde_json::json!([PROGRAM, "healthcheck", "--live"]));
    assert!(ayova(&["healthcheck", "--live", "--help"]).0 && living["timeoutSeconds"].as_u64().unwrap() > 3);
    let patience_s = living["periodSeconds"].as_u64().unwrap() * living["failureThreshold"].as_u64().unwrap();
    assert!(patience_s > grace_s(ours), "a machine that is busy for a moment is no reason: {patience_s}");
    let mounts = list(sidecar, "/volumeMounts");
    let mounted = |path: &str| {
        let mount = mounts.iter().find(|mount| path.starts_with(said(mount, "/mountPath")));
        let mount = mount.unwrap_or_else(|| panic!("{path} is on no volume"));
        (said(mount, "/name"), mount["readOnly"] == true)
    };
    assert_eq!((mounted(CONFIG), mounted("/run/secrets/ayova")), (("config", true), ("secrets", true)));
    assert_eq!(mounted("/data/ayova.db"), ("records", false));
    assert_eq!(mounted(CERTIFICATE), ("certificate", true));
    assert!(ours.contains("path: /data/ayova.db"));
    assert_eq!(said(&app[0], "/spec/volumeClaimTemplates/0/metadata/name"), "records");
    let manifest = text("deploy/kubernetes/config.yaml");
    let volume = list(pod, "/volumes").iter().find(|volume| volume["name"] == "certificate").unwrap();
    assert!(manifest.contains(&format!("create secret tls {} ", said(volume, "/secret/secretName"))), "{volume}");
    for secret in secrets(ours, "/run/secrets/ayova") {
        assert!(manifest.contains(&format!("--from-file={secret}")), "{secret} is in no Secret");
    }
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > grace_s(ours) + CLOSING_S);
    let variable = &sidecar["env"][0];
    assert!(ours.contains(&format!("${{{}:-{}}}", said(variable, "/name"), said(variable, "/value"))), "{variable}");
}

#[test]
fn the_pod_has_no_rights_it_does_not_need_and_its_ports_meet() {
    let app = yaml("deploy/kubernetes/app.yaml");
    let pod = &app[0]["spec"]["template"]["spec"];
    let rights = &pod["securityContext"];
    assert_eq!((&rights["runAsNonRoot"], said(rights, "/seccompProfile/type")), (&Value::Bool(true), "RuntimeDefault"));
    assert_eq!(instruction("USER"), format!("{}:{}", rights["runAsUser"], rights["runAsGroup"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let containers = || list(pod, "/initContainers").iter().chain(list(pod, "/containers"));
    for container in containers() {
        let rights = &container["securityContext"];
        assert_eq!(rights["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(
            (&rights["readOnlyRootFilesystem"], &rights["allowPrivilegeEscalation"]),
            (&true.into(), &false.into())
        );
        assert!(
            container["resources"]["requests"].is_object() && container["resources"]["limits"]["memory"].is_string()
        );
    }
    let ports: Vec<&Value> = containers().flat_map(|container| list(container, "/ports")).collect();
    for service in &app[1..] {
        assert_eq!(said(service, "/kind"), "Service");
        for port in list(service, "/spec/ports") {
            assert!(ports.iter().any(|open| open["name"] == port["targetPort"]), "{port}");
        }
    }
    let policy = yaml("deploy/kubernetes/network.yaml").remove(0);
    let let_in: Vec<_> = list(&policy, "/spec/ingress").iter().flat_map(|rule| list(rule, "/ports")).collect();
    for open in &ports {
        assert!(let_in.iter().any(|rule| rule["port"] == open["containerPort"]), "nobody may reach {open}");
    }
    assert_eq!(let_in.len(), ports.len());
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], app[0]["spec"]["template"]["metadata"]["labels"]);
}

/// A connection that ayova closes has to break for Ayoconnect too: an HTTP proxy would answer 502, and one 5xx is the
/// end of a classic callback.
#[test]
fn nothing_answers_callbacks_in_place_of_the_sidecar() {
    let all = ["app", "config", "network"].map(|name| yaml(&format!("deploy/kubernetes/{name}.yaml"))).concat();
    assert!(all.iter().all(|object| !["Ingress", "HTTPRoute"].contains(&said(object, "/kind"))));
    let callbacks = all.iter().find(|object| object["metadata"]["name"] == "payments-callbacks").unwrap();
    let spec = &callbacks["spec"];
    assert_eq!((said(spec, "/type"), said(spec, "/externalTrafficPolicy")), ("LoadBalancer", "Local"));
    // An app that is down is no reason to refuse what would be kept for it.
    assert_eq!(spec["publishNotReadyAddresses"], true);
    let ours = said(&all.iter().find(|object| object["kind"] == "ConfigMap").unwrap()["data"], "/ayova.yaml");
    assert!(ours.contains(&format!("tls: {{ cert: {CERTIFICATE}/tls.crt, key: {CERTIFICATE}/tls.key }}")));
    let policy = all.iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    let rule = list(policy, "/spec/ingress").iter().find(|rule| rule["ports"][0]["port"] == 8443).unwrap();
    assert!(rule["from"].is_null(), "the balancer keeps Ayoconnect's address, which is no pod's: {rule}");
}

#[test]
fn compose_restarts_neither_container_into_a_network_that_is_gone() {
    let compose = yaml("deploy/compose.yaml").remove(0);
    let services = &compose["services"];
    for name in ["app", "ayova"] {
        let service = &services[name];
        assert_eq!(said(service, "/network_mode"), "service:network", "{name}");
        assert!(service["ports"].is_null(), "{name}: who owns the network publishes");
        assert_eq!(service["depends_on"]["network"]["restart"], true, "{name}");
    }
    assert_eq!(services["app"]["depends_on"]["ayova"]["condition"], "service_healthy");
    assert_eq!(services["ayova"]["healthcheck"]["test"], serde_json::json!(["CMD", PROGRAM, "healthcheck"]));
    let owner = &services["network"];
    assert!(owner["network_mode"].is_null() && owner["depends_on"].is_null() && list(owner, "/ports").len() == 2);
    let (_, version) = said(owner, "/image").rsplit_once(':').unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()), "not a version: {version}");
}

#[test]
fn compose_mounts_what_its_configuration_names() {
    let config = text("deploy/compose.ayova.yaml");
    check("deploy/compose.ayova.yaml", &config, "/run/secrets");
    let compose = yaml("deploy/compose.yaml").remove(0);
    let ayova = &compose["services"]["ayova"];
    let given: Vec<_> = list(ayova, "/secrets").iter().map(|secret| secret.as_str().unwrap()).collect();
    for secret in secrets(&config, "/run/secrets") {
        assert!(given.contains(&secret) && compose["secrets"][secret]["file"].is_string(), "{secret}");
    }
    assert_eq!(said(ayova, "/configs/0/target"), CONFIG);
    assert!(path("deploy").join(said(&compose, "/configs/ayova/file")).exists());
    assert!(path("deploy").join(said(ayova, "/build/context")).join("Dockerfile").exists());
    assert_eq!(said(ayova, "/user"), instruction("USER"));
    assert_eq!((&ayova["read_only"], &ayova["cap_drop"]), (&Value::Bool(true), &serde_json::json!(["ALL"])));
    assert!(
        list(ayova, "/volumes").iter().any(|volume| volume == "records:/data")
            && compose["volumes"]["records"].is_object()
    );
    assert!(seconds(said(ayova, "/stop_grace_period")) > grace_s(&config) + CLOSING_S);
}

#[test]
fn the_units_hand_over_what_their_configuration_names() {
    let config = text("deploy/systemd/ayova.yaml");
    let credentials = "/run/credentials/ayova.service";
    check("deploy/systemd/ayova.yaml", &config, credentials);
    let (service, socket) = (text("deploy/systemd/ayova.service"), text("deploy/systemd/ayova.socket"));
    for secret in secrets(&config, credentials) {
        assert!(service.contains(&format!("\nLoadCredential={secret}:/")), "{secret} is no credential");
    }
    let value = |unit: &str, key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
        found.unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!(value(&service, "ExecStart"), format!("{PROGRAM} run --config {CONFIG}"));
    assert!(config.contains(&format!("\n  address: {}\n", value(&socket, "ListenStream"))), "the socket is another");
    let records = Path::new("/var/lib").join(value(&service, "StateDirectory")).join("ayova.db");
    assert!(config.contains(&format!("path: {}\n", records.display())));
    assert!(seconds(&value(&service, "TimeoutStopSec")) > grace_s(&config) + CLOSING_S);
    // What `ayova --help` promises of a wrong command line and a bad configuration.
    assert_eq!(value(&service, "RestartPreventExitStatus"), "2 78");
}

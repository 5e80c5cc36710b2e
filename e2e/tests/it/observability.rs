//! The dashboard and the alert rules, held against the metrics that there are.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prometheus::Registry;
use reflex_core::{
    Event, HandlerError, Health, MemoryCursors, MemoryEvents, Metrics, NewEvent, Spec, consumer_fn, run,
};
use serde_json::Value;

/// What a metric may be called where it is asked for, beside its name.
const SUFFIXES: [&str; 3] = ["_bucket", "_count", "_sum"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../observability").join(file)
}

fn dashboard() -> Value {
    serde_json::from_slice(&fs::read(path("grafana-dashboard.json")).unwrap()).unwrap()
}

/// The panels that show something, and not the rows between them.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// The names of all metrics, after each has been used.
async fn metrics() -> BTreeSet<String> {
    let (registry, health) = (Registry::new(), Health::new());
    let metrics = Metrics::register(&registry).unwrap();
    health.register(&registry).unwrap();
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-12", 1));
    let consumer = consumer_fn("billing", |_event: Event| async { Err(HandlerError::new("no answer")) });
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).metrics(&metrics).health(&health);
    // One that ended as intended would have no lag.
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    let counters = [metrics.skipped("a"), metrics.dead_lettered("a"), metrics.given_up("a")];
    let others = [metrics.retries("a"), metrics.restarts("a"), metrics.cursor_sets("cursors")];
    drop((counters, others, metrics.dead_letters_open("a")));
    metrics.events_table("events").gap_mode.with_label_values(&["events", "locks"]).set(1);
    registry.gather().iter().map(|family| family.name().to_owned()).collect()
}

/// The names of our metrics in a text, without what a histogram appends.
fn used(text: &str, metrics: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("reflex_"));
    let bare = |word: &str| SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix)).map(str::to_owned);
    ours.map(|word| if metrics.contains(word) { word.to_owned() } else { bare(word).unwrap_or(word.to_owned()) })
        .collect()
}

/// The names of all alerts.
fn alerts() -> Vec<String> {
    let rules = fs::read_to_string(path("prometheus-rules.yml")).unwrap();
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(!alerts.is_empty());
    alerts
}

#[tokio::test]
async fn the_dashboard_shows_every_metric_and_no_other() {
    let (metrics, dashboard) = (metrics().await, dashboard());
    let queries: Vec<_> = panels(&dashboard).iter().map(|panel| panel["targets"].to_string()).collect();
    assert_eq!(used(&queries.join("\n"), &metrics), metrics);
    let variables = used(&dashboard["templating"].to_string(), &metrics);
    assert!(!variables.is_empty() && variables.is_subset(&metrics), "{variables:?}");
}

#[tokio::test]
async fn alerts_ask_for_metrics_that_there_are() {
    let metrics = metrics().await;
    for file in ["prometheus-rules.yml", "prometheus-rules.test.yml", "README.md"] {
        let used = used(&fs::read_to_string(path(file)).unwrap(), &metrics);
        let unknown: Vec<_> = used.difference(&metrics).collect();
        assert!(used.len() > 5 && unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard = dashboard();
    for key in ["title", "uid", "schemaVersion", "time", "templating"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let ids: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each panel has an id of its own");
    let variables: Vec<_> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(variables, ["datasource", "consumer", "table"]);
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let position = &panel["gridPos"];
        let right = position["x"].as_u64().unwrap() + position["w"].as_u64().unwrap();
        assert!(right <= 24 && position["h"].as_u64().unwrap() > 0, "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(!target["expr"].as_str().unwrap().is_empty() && !target["refId"].is_null(), "{title}");
        }
    }
}

#[track_caller]
fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output().expect("promtool is in PATH");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

#[test]
#[ignore = "needs promtool: cargo xtask test"]
fn alerts_fire_when_they_should() {
    promtool(&["check", "rules"], &path("prometheus-rules.yml"));
    promtool(&["test", "rules"], &path("prometheus-rules.test.yml"));
    let tests = fs::read_to_string(path("prometheus-rules.test.yml")).unwrap();
    for alert in alerts() {
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} is never seen to fire");
    }
}

#[test]
fn the_readme_tells_what_each_alert_means() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    for alert in alerts() {
        assert!(readme.contains(&format!("\n| {alert} | ")), "{alert} has no row");
    }
}

/// The queries are valid, as rules that record them would be.
#[test]
#[ignore = "needs promtool: cargo xtask test"]
fn queries_of_the_dashboard_are_valid() {
    let dashboard = dashboard();
    let targets = panels(&dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap());
    let rules = queries.enumerate().map(|(number, query)| {
        let query = query.replace("$__rate_interval", "5m").replace("$consumer", ".*").replace("$table", ".*");
        serde_json::json!({"record": format!("query:{number}"), "expr": query})
    });
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dashboard.json");
    fs::write(&path, file.to_string()).unwrap();
    promtool(&["check", "rules"], &path);
}

//! What limits weigh, when they begin anew, and what is told of them to clients and operators.

use serde_json::{Value, json};

use crate::support::message::Response;
use crate::support::{Origin, Tollgate, open_to, process};

/// `[limits.few]`, and a route under it that answers by itself.
fn few(limit: &str) -> String {
    format!(
        "[limits.few]\n{limit}\n[routes.main]\nauth = \"none\"\nlimits = [\"few\"]\nrespond = {{ body = \"here\" }}\n"
    )
}

#[test]
fn a_quota_is_used_up_until_its_period_ends_whatever_is_reloaded() {
    let tollgate = Tollgate::with(&few("quota = \"2/month\"\nkey = [\"client.address\"]"));
    for remaining in [1, 0] {
        let response = tollgate.get("/").send().expect(200);
        assert_eq!(response.header("ratelimit-policy"), Some("\"few\";q=2;w=2678400"));
        let told = response.header("ratelimit").expect("it is told");
        assert!(told.starts_with(&format!("\"few\";r={remaining};t=")), "{told}");
    }
    tollgate.edit(|text| text.push_str("\n[routes.other]\npath = \"/other\"\nauth = \"none\"\nrespond = {}\n"));
    tollgate.reload().succeeded();
    let response = tollgate.get("/").send().expect(429);
    let seconds: u64 = response.header("retry-after").expect("there").parse().expect("seconds");
    assert!((1..=31 * 86_400).contains(&seconds), "{seconds}");
    let document = response.json();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&document["reason"], &document["violated-policies"]), (&json!("quota_exceeded"), &json!(["few"])));
    let line = tollgate.logged(&response);
    assert_eq!((&line["reason"], &line["limit"]), (&json!("quota_exceeded"), &json!("few")));
}

#[test]
fn a_method_takes_what_it_costs_and_a_refusal_by_another_limit_gives_all_of_it_back() {
    let tollgate = Tollgate::with(
        r#"
        [limits.work]
        rate = "1/h"
        burst = 10
        key = []
        cost = { POST = 4, GET = 2 }
        [limits.users]
        quota = "3/month"
        key = ["header.x-user"]
        [routes.main]
        auth = "none"
        limits = ["work", "users"]
        respond = { body = "here" }
        "#,
    );
    let ask = |method: &str, user: &str| tollgate.request(method, "/").header("x-user", user).send();
    let left = |method: &str, user: &str| ask(method, user).expect(200).header("ratelimit").map(str::to_owned);
    let told = |work: u32, reset: u32| format!("\"work\";r={work};t={reset}");
    assert!(left("POST", "a").expect("told").contains(&told(6, 4 * 3600)));
    assert!(left("HEAD", "a").expect("told").contains("\"work\";r=4;"), "HEAD is as much work as GET");
    assert!(left("PUT", "a").expect("told").contains("\"work\";r=3;"));
    for _ in 0..5 {
        assert_eq!(ask("GET", "a").expect(429).json()["violated-policies"], json!(["users"]));
    }
    assert_eq!(ask("POST", "b").expect(429).json()["violated-policies"], json!(["work"]));
    assert!(left("GET", "b").expect("told").contains("\"work\";r=1;"));
    assert!(left("PUT", "b").expect("told").contains("\"work\";r=0;"));
}

#[test]
fn what_a_request_costs_is_believed_of_trusted_proxies_alone() {
    let origin = Origin::replying("hello");
    let limit = r#"
        [limits.work]
        rate = "1/h"
        burst = 10
        key = []
        cost = "header.x-cost"
        [defaults]
        limits = ["work"]
        "#;
    let spent = |trusted: &str, cost: &[&str]| {
        let server = format!("[server]\ntrusted_proxies = [{trusted}]\n");
        let tollgate = Tollgate::with(&format!("{server}{limit}{}", open_to(&[origin.addr()])));
        let request = cost.iter().fold(tollgate.get("/"), |request, cost| request.header("x-cost", cost));
        let response = request.send().expect(200);
        response.header("ratelimit").expect("told").to_owned()
    };
    assert!(spent("\"127.0.0.1\"", &["7"]).starts_with("\"work\";r=3;"));
    assert!(spent("\"127.0.0.1\"", &[]).starts_with("\"work\";r=9;"));
    assert!(spent("\"127.0.0.1\"", &["1", "1"]).starts_with("\"work\";r=0;"), "of two none is believed");
    assert!(spent("", &["7"]).starts_with("\"work\";r=9;"), "a client does not say what it costs");
    let last = origin.requests().pop().expect("it has arrived");
    assert_eq!(last.header("x-cost"), None, "nor is the origin told");
}

#[test]
fn fields_of_old_and_the_key_are_told_on_request() {
    let tollgate = Tollgate::with(&few(
        "rate = \"1/h\"\nburst = 2\nkey = [\"header.x-user\"]\nlegacy_headers = true\npartition_key = true",
    ));
    let ask = |user: &str| tollgate.get("/").header("x-user", user).send();
    let legacy = |response: &Response| {
        ["limit", "remaining", "reset"].map(|name| response.headers.all(&format!("x-ratelimit-{name}")).join("|"))
    };
    let partition = |response: &Response| {
        let policy = response.header("ratelimit-policy").expect("told");
        let key = policy.strip_prefix("\"few\";q=2;w=7200;pk=:").and_then(|rest| rest.strip_suffix(':'));
        let key = key.unwrap_or_else(|| panic!("{policy}")).to_owned();
        assert!(response.header("ratelimit").expect("told").ends_with(&format!(";pk=:{key}:")));
        key
    };
    let first = ask("alice").expect(200);
    assert_eq!(legacy(&first), ["2", "1", "3600"]);
    let second = ask("alice").expect(200);
    assert_eq!(legacy(&second), ["2", "0", "7200"]);
    let third = ask("alice").expect(429);
    assert_eq!(legacy(&third), ["2", "0", third.header("retry-after").expect("there")]);
    let keys = [&first, &second, &third, &ask("bob").expect(200)].map(partition);
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    assert_eq!(keys[0].len(), 12, "64 bits, and not a name");
}

#[test]
fn limits_that_are_tried_out_are_named_in_the_log_and_so_are_those_of_a_listener_without_a_route() {
    let tollgate = Tollgate::with(
        r#"
        [listeners.http]
        limits = ["arrivals"]
        [limits.arrivals]
        rate = "1/h"
        burst = 1
        key = []
        mode = "shadow"
        [limits.tried]
        rate = "1/h"
        burst = 1
        key = []
        mode = "shadow"
        [routes.main]
        path = "/"
        auth = "none"
        limits = ["tried"]
        respond = { body = "here" }
        "#,
    );
    let first = tollgate.get("/").send().expect(200);
    assert_eq!(tollgate.logged(&first).get("limits_shadowed"), None);
    let second = tollgate.get("/").send().expect(200);
    assert_eq!(tollgate.logged(&second)["limits_shadowed"], "arrivals,tried");
    let nowhere = tollgate.get("/nowhere").send().expect(404);
    let line = tollgate.logged(&nowhere);
    assert_eq!((&line["limits_shadowed"], line.get("limit")), (&json!("arrivals"), None));
}

#[test]
fn an_operator_sees_who_takes_most_and_by_name_only_where_that_is_allowed() {
    let limit = |more: &str| format!("rate = \"1/h\"\nburst = 20\nkey = [\"header.x-user\"]\n{more}");
    let busiest = |tollgate: &Tollgate| {
        for (user, count) in [("alice", 3), ("<bob>", 19)] {
            for _ in 0..count {
                tollgate.get("/").header("x-user", user).send().expect(200);
            }
        }
        let limits = tollgate.admin("/api/limits").expect(200).json();
        let few = limits["limits"][0].clone();
        let counts = ["allowed", "near", "refused", "keys", "max_keys"].map(|name| few[name].as_u64());
        assert_eq!(counts, [Some(22), Some(1), Some(0), Some(2), Some(1_000_000)]);
        let busiest = few["busiest"].as_array().expect("a list").clone();
        let used: Vec<_> = busiest.iter().map(|key| (key["used"].as_u64(), key["most"].as_u64())).collect();
        assert_eq!(used, [(Some(19), Some(20)), (Some(3), Some(20))]);
        busiest.iter().map(|key| key["key"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let is_hash = |key: &str| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hashed = Tollgate::with(&few(&limit("")));
    assert!(busiest(&hashed).iter().all(|key| is_hash(key)));
    hashed.wait_for_metric("tollgate_limit_near_total{limit=\"few\"}", 1.0);
    let shown = Tollgate::with(&few(&limit("show_keys = true")));
    let keys = busiest(&shown);
    assert!(keys[0] == "<bob>" && is_hash(&keys[1]), "who is far from the limit is not remembered: {keys:?}");
}

#[test]
fn everything_that_has_a_bound_can_be_asked_for() {
    let tollgate = Tollgate::with(&format!(
        "[server]\nmax_connection_rate_per_address = \"1000/s\"\n{}",
        few("rate = \"1/h\"\nburst = 2\nkey = [\"header.x-user\"]\nmax_keys = 1")
    ));
    for user in ["a", "b"] {
        tollgate.get("/").header("x-user", user).send().expect(200);
    }
    let table = tollgate.command("limits").succeeded().stdout;
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {table}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("limits.few")[1..], ["keys", "1", "1", "1"], "one key, and one that there was no room for");
    assert_eq!(row("max_connection_rate_per_address")[1..], ["bytes", "4194304", "4194304", "0"]);
    assert_eq!(row("access_log")[1..3], ["bytes", "67108864"]);
    assert_eq!(row("connections")[1], "connections");
    let output = process::tollgate([
        "limits".as_ref(),
        "--json".as_ref(),
        "--config".as_ref(),
        tollgate.config_file().as_os_str(),
    ]);
    let all: Value = serde_json::from_str(&output.succeeded().stdout).expect("JSON");
    assert_eq!(all["resources"][0]["name"], "connections");
    assert_eq!(all["more"], 0);
}

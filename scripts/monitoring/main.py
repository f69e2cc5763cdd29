"""Starts everything, then asks Prometheus every query of the dashboards: each has to have data."""

import contextlib
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

from world import Load, Service, free_port, get

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 90

CONFIG = """
[server]
runtime_dir = "{home}/run"

[admin]
address = "127.0.0.1:{admin}"

[log.access]
output = "file:{home}/access.log"

[listeners.http]
address = "127.0.0.1:{http}"

[listeners.https]
address = "127.0.0.1:{https}"
[listeners.https.tls]
certificates = [{{ cert_file = "{files}/example-site.pem", key_file = "{files}/example-site.key" }}]

[auth.corporate]
type = "jwt"
issuer = "https://id.example.com"
audience = ["orders"]
algorithms = ["ES256"]
jwks_url = "http://{service}/jwks"

[auth.opaque]
type = "introspection"
url = "http://{service}/introspect"
client_id = "gateway"
client_secret_file = "secret"

[limits.per_address]
rate = "5/s"
key = ["client.address"]

[limits.fleet]
rate = "1000/s"
key = ["route"]
store = "redis"
redis_url = "redis://127.0.0.1:{redis}/0"
on_store_failure = "allow"

[upstreams.shop]
endpoints = ["{service}", "{other}"]
balance = "peak_ewma"
sticky = {{ cookie = "route", secret_file = "secret" }}
[upstreams.shop.health]
type = "http"
path = "/health"
interval = "1s"

[upstreams.flaky]
endpoints = ["{service}", "{broken}", "127.0.0.1:{nobody}"]
[upstreams.flaky.retry]
on = ["connect_failure", "reset", "503"]
[upstreams.flaky.outlier]
consecutive_failures = 3
ejection = "1s"

[upstreams.broken]
endpoints = ["{broken}"]
[upstreams.broken.breaker]
min_requests = 5
open_for = "1s"

[routes.shop]
path = "/shop"
auth = "none"
limits = ["fleet"]
upstream = "shop"

[routes.limited]
path = "/limited"
auth = "none"
limits = ["per_address"]
upstream = "shop"

[routes.flaky]
path = "/flaky"
auth = "none"
upstream = "flaky"

[routes.broken]
path = "/broken"
auth = "none"
upstream = "broken"

[routes.private]
path = "/private"
auth = "corporate"
upstream = "shop"

[routes.opaque]
path = "/opaque"
auth = "opaque"
upstream = "shop"

[routes.trial]
path = "/trial"
auth = "corporate"
auth_mode = "shadow"
upstream = "shop"
"""

REQUESTS = [("/shop", ()), ("/limited", ()), ("/flaky", ()), ("/broken", ()), ("/private", ()), ("/nowhere", ()),
            ("/opaque", (("Authorization", "Bearer opaque"),)), ("/trial", ())]

PROMETHEUS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [rules/*.yml]
scrape_configs:
  - job_name: tollgate
    static_configs: [{{ targets: ["127.0.0.1:{admin}"] }}]
"""

def fail(text):
    raise SystemExit(f"FAILED: {text}")


def wait(what, condition, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            fail(f"{what} after {seconds} s")
        time.sleep(0.2)


def ended(process):
    process.terminate()
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()


@contextlib.contextmanager
def started(name, command, home):
    with open(home / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home)
    try:
        yield process
    except BaseException:
        print((home / f"{name}.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        ended(process)


def queries():
    """(dashboard, panel, expression), as Grafana would ask with every variable at "All"."""
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield path.stem, panel["title"], target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            # Only a moment has these: asked without what makes it one.
            yield path.stem, annotation["name"], annotation["expr"].removesuffix(" > 0")
        for variable in dashboard["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((.*), \w+\)", variable.get("definition", "")):
                yield path.stem, variable["name"], found[1]


def filled_in(expression):
    for name, value in [("$__rate_interval", "10s"), ("$__range", "1m"), ("$job", ".*"), ("$instance", ".*"), ("$route", ".*"),
                        ("$upstream", ".*")]:
        expression = expression.replace(name, value)
    if "$" in expression:
        fail(f"a variable that this test does not know: {expression}")
    return expression


def ask(prometheus, path, **parameters):
    status, text = get(prometheus, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
    if status is None:
        return None
    answer = json.loads(text)
    if answer["status"] != "success":
        fail(f"{parameters}: {answer['error']}")
    return answer["data"]


def has_data(prometheus, expression):
    result = ask(prometheus, "query", query=expression)["result"]
    return any(math.isfinite(float(series["value"][1])) for series in result)


def lint(admin):
    """promtool says what a convention asks for, and exits with 3 for that alone."""
    text = get(admin, "/metrics")[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    if done.returncode or done.stderr.strip():
        fail(f"promtool check metrics: {done.stdout}{done.stderr}")
    print(f"{'promtool check metrics':<48} {text.count('# TYPE')} metrics")
    return text


def rules(prometheus, metrics):
    groups = ask(prometheus, "rules")["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    for rule in every:
        if rule["health"] != "ok":
            fail(f"the rule {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        for name in re.findall(r"\b(?:tollgate|process)_\w+", re.sub(r"job_route:\w+", "", rule["query"])):
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            if f"# TYPE {name} " not in metrics and f"# TYPE {family} " not in metrics:
                fail(f"the rule {rule['name']} asks for {name}, which nothing counts")
    print(f"{'rules that evaluate':<48} {len(every)}")


def settled(prometheus):
    groups = ask(prometheus, "rules")
    return groups and all(rule["health"] != "unknown" for group in groups["groups"] for rule in group["rules"])


def run(tollgate, home):
    service, other, broken = Service(200), Service(200), Service(503)
    ports = {name: free_port() for name in ("admin", "http", "https", "redis", "nobody", "prometheus")}
    (home / "secret").write_text("a secret of this test alone, of 40 bytes")
    (home / "secret").chmod(0o600)
    (home / "tollgate.toml").write_text(CONFIG.format(
        home=home, files=ROOT / "conf/examples/files", service=service.address, other=other.address, broken=broken.address, **ports))
    (home / "prometheus.yml").write_text(PROMETHEUS.format(**ports))
    (home / "rules").mkdir()
    for path in (ROOT / "deploy/prometheus/rules").glob("*.yml"):
        # Recorded each second instead of twice a minute: nobody waits for that here.
        (home / "rules" / path.name).write_text(path.read_text().replace("interval: 30s", "interval: 1s"))
    admin, prometheus = f"127.0.0.1:{ports['admin']}", f"127.0.0.1:{ports['prometheus']}"
    redis = ["redis-server", "--port", str(ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(started("redis", redis, home))
        stack.enter_context(started("tollgate", [tollgate, "run", "-c", str(home / "tollgate.toml")], home))
        wait("it is not ready", lambda: get(admin, "/readyz")[0] == 200)
        load = Load(f"127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['https']}", REQUESTS)
        stack.callback(load.stop)
        stack.enter_context(started("prometheus", [
            "prometheus", f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
            f"--web.listen-address={prometheus}"], home))
        wait("Prometheus is not ready", lambda: get(prometheus, "/-/ready")[0] == 200)
        subprocess.run([tollgate, "reload", "-c", str(home / "tollgate.toml")], check=True, stdout=subprocess.DEVNULL)
        count = 0
        for dashboard, panel, expression in queries():
            wait(f"{dashboard}, {panel}: no data for {expression}", lambda: has_data(prometheus, filled_in(expression)))
            count += 1
        print(f"{'queries of dashboards that have data':<48} {count}")
        wait("rules are not evaluated", lambda: settled(prometheus))
        rules(prometheus, lint(admin))
        # Their conditions hold in this world, though not for as long as most of them wait.
        for alert in ("TollgateLimitRefuses", "TollgateAuthShadowed", "TollgateBreakerOpen"):
            wait(f"{alert} does not see what happens", lambda: ask(prometheus, "query", query=f'ALERTS{{alertname="{alert}"}}')["result"])
        print(f"{'alerts that see what happens':<48} 3")
        if load.error or not load.answered:
            fail(f"the load ended: {load.error}")
        print(f"{'requests':<48} {load.answered}")
    print("rules and dashboards see what happens")


def main():
    tollgate = str(pathlib.Path(sys.argv[1]).resolve())
    home = pathlib.Path(tempfile.mkdtemp(prefix="tollgate-monitoring-"))
    try:
        run(tollgate, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


main()

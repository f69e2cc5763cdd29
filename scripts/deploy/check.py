"""Renders everything under deploy/kubernetes in each of its forms, and looks at what comes out."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "kubernetes/chart"
# The first that has every field, the newest, and some between.
VERSIONS = ["1.27", "1.31", "1.35", "1.37"]
# The kinds of the operator are not Kubernetes' own: their schemas are asked by operator.mjs, where npm has brought them.
OPERATOR = "monitoring.coreos.com/v1"
CERTIFICATE = ROOT / "conf/examples/files"

failures = []


def expect(condition, text):
    if not condition:
        failures.append(text)


def kustomized(path):
    kubectl = pathlib.Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", path], check=True, capture_output=True, text=True)
    expect(not done.stderr, f"{path.name}: {done.stderr}")
    return documents(done.stdout)


def rendered(values):
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="edge", namespace="prod")
    return [each for path, text in texts.items() if path.endswith(".yaml") for each in documents(text)]


def documents(text):
    return [each for each in yaml.safe_load_all(text) if each]


def schema(where, manifest):
    name = f"{where}: {manifest['kind']} {manifest['metadata']['name']}"
    if manifest["apiVersion"] == OPERATOR:
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            failures.append(f"{name}, {version}: {error}")


def one(manifests, kind, suffix=""):
    return next((each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)), None)


def restricted(where, manifests):
    """What the pod security standard "restricted" asks for, and a root that nobody writes to."""
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    expect(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
           f"{where}: the pod is not restricted")
    expect(not any("hostPath" in volume for volume in pod["volumes"]), f"{where}: a volume of the host")
    expect(pod["automountServiceAccountToken"] is False, f"{where}: a token of the API server")
    for container in pod["containers"]:
        context = container["securityContext"]
        expect(context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"]
               and context["capabilities"] == {"drop": ["ALL"]}, f"{where}: {container['name']} is not restricted")


def connected(where, manifests):
    """Names that point at each other: a typing error in one of them is valid, and serves nobody."""
    deployment = one(manifests, "Deployment")
    pod = deployment["spec"]["template"]
    container = pod["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    labels = pod["metadata"]["labels"].items()
    selectors = [("Deployment", deployment["spec"]["selector"]["matchLabels"])]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                selectors.append(("Service", spec["selector"]))
                expect({port["targetPort"] for port in spec["ports"]} <= ports, f"{where}: a Service names a port that no container has")
                inside = manifest["metadata"]["name"].endswith("-health")
                expect(inside or all(port["targetPort"] != "health" for port in spec["ports"]), f"{where}: metrics are published")
            case "PodDisruptionBudget":
                selectors.append(("PodDisruptionBudget", spec["selector"]["matchLabels"]))
            case "NetworkPolicy":
                selectors.append(("NetworkPolicy", spec["podSelector"]["matchLabels"]))
                named = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
                expect(named == ports, f"{where}: the NetworkPolicy knows other ports than the container")
            case "HorizontalPodAutoscaler":
                expect(spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"], f"{where}: the autoscaler scales something else")
                expect("replicas" not in deployment["spec"], f"{where}: replicas beside an autoscaler")
            case "ServiceMonitor":
                health = one(manifests, "Service", "-health")["metadata"]["labels"].items()
                expect(spec["selector"]["matchLabels"].items() <= health, f"{where}: the ServiceMonitor finds no Service")
    for kind, selector in selectors:
        expect(selector.items() <= labels, f"{where}: the selector of the {kind} finds no pod")
    account = one(manifests, "ServiceAccount")
    expect(account is None or account["metadata"]["name"] == pod["spec"]["serviceAccountName"], f"{where}: no such ServiceAccount")


def seconds(text):
    found = re.fullmatch(r"(\d+)(s|m)", text)
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]


def served(where, manifests, tollgate):
    """The configuration, laid out as the kubelet would, is taken by the binary, and fits the pod around it."""
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    sources = next(volume for volume in pod["volumes"] if volume["name"] == "config")["projected"]["sources"]
    named = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "ConfigMap"}
    name = next(source["configMap"]["name"] for source in sources if "configMap" in source)
    if name not in named:
        return False
    with tempfile.TemporaryDirectory() as directory:
        home = pathlib.Path(directory)
        for file, text in named[name]["data"].items():
            (home / file).write_text(text)
        # What a Secret of the operator's own would hold.
        (home / "api-keys.toml").write_text("")
        if any("items" in source.get("secret", {}) for source in sources):
            (home / "tls").mkdir()
            for mine, theirs in [("tls.crt", "example-site.pem"), ("tls.key", "example-site.key")]:
                (home / "tls" / mine).write_bytes((CERTIFICATE / theirs).read_bytes())
        environment = {each["name"]: each["value"] for each in pod["containers"][0].get("env", [])}
        done = subprocess.run([tollgate, "check", "-c", home / "tollgate.toml"], capture_output=True, text=True,
                              env=os.environ | environment)
        expect(done.returncode == 0, f"{where}: {done.stdout}{done.stderr}")
    text = named[name]["data"]["tollgate.toml"]
    # tomllib is not in every Python that Debian has had; these four lines are ours.
    keys = dict(re.findall(r'^(\w+) = "?([^"\n]*?)"?\s*(?:#.*)?$', text, re.M))
    expect(keys["watch"] == "true", f"{where}: a change of the ConfigMap is not followed")
    expect(seconds(keys["drain_delay"]) + seconds(keys.get("drain_timeout", "30s")) < pod["terminationGracePeriodSeconds"],
           f"{where}: the kubelet kills before the drain is over")
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    expect(any(keys["runtime_dir"].startswith(mount + "/") for mount in mounts), f"{where}: runtime_dir is not below a volume")
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    expect(keys["health_address"].endswith(f":{ports['health']}"), f"{where}: the probes ask another port")
    listening = {int(port) for port in re.findall(r'^address = ".*:(\d+)"', text, re.M)}
    expect(listening == {port for name, port in ports.items() if name != "health"}, f"{where}: listeners and ports differ")
    return True


def prometheus_rule():
    """The rules as the operator takes them: made here, so that there is one place to change them."""
    groups = []
    for path in sorted((DEPLOY / "prometheus/rules").glob("*.yml")):
        groups += yaml.safe_load(path.read_text())["groups"]
    manifest = {
        "apiVersion": OPERATOR,
        "kind": "PrometheusRule",
        "metadata": {"name": "tollgate", "labels": {"app.kubernetes.io/name": "tollgate"}},
        "spec": {"groups": groups},
    }
    text = "# Made of rules/ by `BLESS=1 make deploy`.\n" + yaml.safe_dump(manifest, sort_keys=False, width=120)
    path = DEPLOY / "prometheus/prometheusrule.yaml"
    if os.environ.get("BLESS"):
        path.write_text(text)
    expect(path.exists() and path.read_text() == text, "prometheusrule.yaml is not what rules/ says: BLESS=1 make deploy")
    return groups


def runbook(groups):
    """Each alert has a section, each section an alert, and each alert a test."""
    page = (ROOT / "docs/alerts.md").read_text()
    sections = re.findall(r"^### (Tollgate\w+)$", page, re.M)
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    expect(sorted(sections) == sorted(alerts), f"docs/alerts.md and the rules differ: {sorted(set(sections) ^ set(alerts))}")
    tests = "".join(path.read_text() for path in (DEPLOY / "prometheus/tests").glob("*.yml"))
    for group in groups:
        for rule in group["rules"]:
            if name := rule.get("alert"):
                expect(f'alertname="{name}"' in tests, f"no test lets {name} fire")
                expect(rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}", f"{name}: its runbook is elsewhere")
                expect(rule["labels"]["severity"] in ("page", "ticket"), f"{name}: no such severity")


def operator(manifests):
    """By the operator's own schemas, where `npm ci` has brought them."""
    directory = pathlib.Path(__file__).parent
    if not (directory / "node_modules").is_dir():
        print("NOT checked by the schemas of the Prometheus operator: scripts/setup.sh ci", file=sys.stderr)
        expect(not os.environ.get("CI"), "the schemas of the Prometheus operator are missing")
        return
    done = subprocess.run(["node", directory / "operator.mjs"], input=json.dumps(manifests), capture_output=True, text=True)
    expect(done.returncode == 0, f"operator: {done.stdout}{done.stderr}")


def refused():
    """Values that must not render, each for a reason of its own."""
    for values in [{"replicas": 3}, {"service": {"type": "ExternalName"}}, {"ports": []}, {"config": ""},
                   {"secret": {"create": True, "existing": "mine"}}, {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}]:
        with helm_python.Chart.load(str(CHART)) as chart:
            try:
                chart.validate_schema(values)
                chart.render(values, name="edge", namespace="prod")
            except helm_python.HelmError:
                continue
            failures.append(f"the chart takes {values}")


def main():
    tollgate = pathlib.Path(sys.argv[1]).resolve()
    groups = prometheus_rule()
    runbook(groups)
    forms = {f"kustomize {name}": kustomized(DEPLOY / "kubernetes" / name) for name in ("base", "example")}
    for path in [None, *sorted((DEPLOY / "kubernetes/tests").glob("*.yaml"))]:
        values = yaml.safe_load(path.read_text()) if path else {}
        forms[f"helm {path.stem if path else 'defaults'}"] = rendered(values)
    operated = []
    for where, manifests in forms.items():
        for manifest in manifests:
            schema(where, manifest)
        operated += [each for each in manifests if each["apiVersion"] == OPERATOR]
        restricted(where, manifests)
        connected(where, manifests)
        own = served(where, manifests, tollgate)
        print(f"{where:<24} {len(manifests)} manifests{'' if own else ', with a configuration from elsewhere'}")
    operator(operated)
    found = helm_python.lint(str(CHART))
    expect(not [each for each in found["messages"] if each["severity"] > 1] and not found["errors"], f"helm lint: {found}")
    refused()
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"valid for Kubernetes {', '.join(VERSIONS)}")


main()

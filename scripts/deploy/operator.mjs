// Reads manifests as JSON, and checks those of the Prometheus operator by its own schemas.
import { readFileSync } from "node:fs";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const kinds = { PrometheusRule, ServiceMonitor };
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
    new kinds[manifest.kind](manifest).validate();
}

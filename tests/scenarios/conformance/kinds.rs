//! What the sequences speak of: our six kinds, and of the built-in ones what the operator, the agents and `kubectl drain` touch.
//!
//! Templates carry all that admission plugins of a real server would add (priority, tolerations, the taint of a new node): those
//! plugins are not part of the sandbox, and every answer would differ by them.

use fastrand::Rng;
use serde_json::{Value, json};

/// One kind and how its objects are made and changed. Names are `@me@-a`; see [`super::side`] for the placeholders.
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub word: &'static str,
    pub namespaced: bool,
    pub status: bool,
    /// Everything but type and metadata of a valid object of that name.
    pub fresh: fn(&mut Rng, &str) -> Value,
    /// A merge patch of what is not status; now and then one that is refused.
    pub change: fn(&mut Rng) -> Value,
    /// A merge patch of the status; now and then one that is refused.
    pub status_change: fn(&mut Rng) -> Value,
}

impl Kind {
    pub fn custom(&self) -> bool {
        self.group == OURS
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of the collection.
    pub fn collection(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let place = if self.namespaced { "namespaces/@ns@/" } else { "" };
        format!("/{root}/{}/{place}{}", self.api_version(), self.plural)
    }

    /// A valid object of that name.
    pub fn object(&self, rng: &mut Rng, name: &str) -> Value {
        let mut object = json!({
            "apiVersion": self.api_version(), "kind": self.word,
            "metadata": {"name": name, "labels": {"conf": "@me@", "tier": pick(rng, &["front", "back"])}},
        });
        super::compare::merge(&mut object, &(self.fresh)(rng, name));
        object
    }
}

const OURS: &str = "cupcake.ricardomolendijk.com";

/// One of these.
pub fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// True once in `n` times.
pub fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

fn choose(rng: &mut Rng, mut choices: Vec<Value>) -> Value {
    let at = rng.usize(..choices.len());
    choices.swap_remove(at)
}

pub const KINDS: &[Kind] = &[
    Kind {
        group: OURS,
        version: "v1",
        plural: "nodetasks",
        word: "NodeTask",
        namespaced: false,
        status: true,
        fresh: |rng, name| {
            let mut task = json!({"spec": {"nodeName": name, "nodeUid": "u-1", "epoch": rng.u32(..3)}});
            if rng.bool() {
                task["spec"]["order"] = order(rng);
            }
            task
        },
        change: |rng| {
            let order = order(rng);
            choose(
                rng,
                vec![
                    json!({"spec": {"order": order}}),
                    json!({"spec": {"epoch": 1}}),
                    json!({"spec": {"epoch": 3}}),
                    json!({"spec": {"epoch": 3, "order": {"epoch": 3, "proceed": true}}}),
                    json!({"spec": {"order": {"proceed": true}}}),
                    json!({"spec": {"order": {"stop": true}}}),
                    json!({"spec": {"order": null}}),
                    json!({"spec": {"inventoryRequest": "to-1-34"}}),
                    json!({"spec": {"nodeName": "other"}}),
                    json!({"spec": {"nodeUid": "u-2"}}),
                ],
            )
        },
        status_change: |rng| {
            let attempt = rng.u32(1..3);
            let key = json!({"runUid": "r-1", "vertex": "n/host-upgrade", "attempt": attempt});
            let state = pick(rng, &["Claimed", "Working", "Prepared", "Done", "Failed", "Refused", "Stopped", "Odd"]);
            choose(
                rng,
                vec![
                    json!({"status": {"key": key, "state": "Claimed", "epoch": 1}}),
                    json!({"status": {"key": key, "state": state, "epoch": 1, "updatedAt": "2021-03-04T05:06:07Z"}}),
                    json!({"status": {"state": state}}),
                    json!({"status": {"message": "works", "step": "kubelet-restart", "outputs": {"kubelet": "1.34.4"}}}),
                    json!({"status": {"state": state, "bootId": "b-1", "message": null, "step": null, "outputs": null}}),
                    json!({"status": {"error": {"class": "Transient", "code": "Lock", "message": "held"}}}),
                    json!({"status": {"error": {"class": "Transient", "code": "9"}}}),
                    json!({"status": {"inventory": {"kubelet": "1.33.4", "role": "worker", "runnerKinds": ["a/v1"]}}}),
                    json!({"status": null}),
                ],
            )
        },
    },
    Kind {
        group: OURS,
        version: "v1",
        plural: "directupdates",
        word: "DirectUpdate",
        namespaced: false,
        status: true,
        fresh: |rng, _name| {
            let mut update = json!({"spec": {"targetVersion": pick(rng, &["1.34.4", "v1.35.0-rc.1"])}});
            let more = choose(
                rng,
                vec![
                    json!({}),
                    json!({"drain": {"timeout": "5m"}, "nodeSelector": {"role": "worker"}}),
                    json!({"control": {"pause": {"requestId": "q-1"}}, "concurrency": "10%"}),
                    json!({"strategy": "canary", "canary": {"enabled": true, "nodes": ["w1"]}, "batchSize": 3}),
                ],
            );
            super::compare::merge(&mut update["spec"], &more);
            update
        },
        change: direct_update_change,
        status_change: |rng| {
            let phase = pick(rng, &["Pending", "InProgress", "Succeeded", "Nowhere"]);
            choose(
                rng,
                vec![
                    json!({"status": {"run": "run-1", "phase": phase, "plan": "plan-1"}}),
                    json!({"status": {"run": "run-2"}}),
                    json!({"status": {"message": "words", "phase": phase}}),
                    json!({"status": {"phase": phase, "observedGeneration": 1}}),
                    json!({"status": {"conditions": [condition("Stalled", "True"), condition("Succeeded", "False")]}}),
                    json!({"status": {"conditions": [condition("Stalled", "Maybe")]}}),
                    json!({"status": {"conditions": [condition("Twice", "True"), condition("Twice", "False")]}}),
                    json!({"status": {"summary": {"completed": 1}, "upgradePath": {"currentVersion": "1.33.4", "targetVersion": "1.34.4"}}}),
                    json!({"status": {"nodes": {"w1": {"phase": "Draining"}}, "preflightResults": {"checks": []}}}),
                    json!({"status": {"nodes": {"w1": {"phase": "Dreaming"}}}}),
                    json!({"status": null}),
                ],
            )
        },
    },
    Kind {
        group: OURS,
        version: "v1",
        plural: "upgraderuns",
        word: "UpgradeRun",
        namespaced: false,
        status: true,
        fresh: |rng, _name| {
            json!({"spec": {
                "concurrency": 1, "directUpdate": {"name": "u", "uid": "u-1"}, "failuresMax": rng.u32(1..3),
                "operationId": "op-1", "plan": {"digest": "0123456789abcdef", "name": "plan-1"}, "targetVersion": "1.34.4",
            }})
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"concurrency": 3}}),
                    json!({"spec": {"concurrency": 0}}),
                    json!({"spec": {"failuresMax": 9}}),
                    json!({"spec": {"hop": "1.34.4"}}),
                    json!({"spec": {"parent": {"run": "r", "uid": "u", "vertex": "v"}}}),
                    json!({"spec": {"plan": {"digest": "xyz"}}}),
                ],
            )
        },
        status_change: |rng| {
            let (epoch, sequence) = (rng.u32(..3), rng.u32(..3));
            let phase = pick(rng, &["Pending", "InProgress", "Succeeded", "Failed", "Odd"]);
            choose(
                rng,
                vec![
                    json!({"status": {"epoch": epoch}}),
                    json!({"status": {"epoch": epoch, "commit": {"epoch": epoch, "sequence": sequence}, "cursor": "{}"}}),
                    json!({"status": {"commit": {"epoch": epoch}}}),
                    json!({"status": {"phase": phase, "reason": "Waiting", "events": ["one", "two"]}}),
                    json!({"status": {"children": [{"name": "c", "phase": phase}]}}),
                    json!({"status": {"conditions": [condition("Stalled", "True")]}}),
                    json!({"status": null}),
                ],
            )
        },
    },
    Kind {
        group: OURS,
        version: "v1",
        plural: "upgradeplans",
        word: "UpgradePlan",
        namespaced: false,
        status: false,
        fresh: |rng, _name| {
            let plan =
                choose(rng, vec![json!({}), json!({"vertices": [{"name": "a", "params": {"n": 1, "x": null}}]})]);
            json!({"spec": {"compiler": "0.1.0", "digest": "0123456789abcdef", "format": 1, "plan": plan, "run": "run-1"}})
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"plan": {"more": true}}}),
                    json!({"spec": {"run": "run-2"}}),
                    json!({"spec": {"run": "run-1"}}),
                    json!({"spec": {"digest": "Z"}}),
                ],
            )
        },
        status_change: |_rng| json!({"status": {"phase": "none"}}),
    },
    Kind {
        group: OURS,
        version: "v1",
        plural: "scheduledupdates",
        word: "ScheduledUpdate",
        namespaced: false,
        status: true,
        fresh: |rng, _name| json!({"spec": {"targetVersion": "1.34.4", "scheduleAt": pick(rng, &["2021-03-04T05:06:07Z", "2021-03-04T05:06:07+02:00"])}}),
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"scheduleAt": "tomorrow"}}),
                    json!({"spec": {"scheduleAt": "2021-06-01T00:00:00Z"}}),
                    json!({"spec": {"airGapped": {"enabled": true}}}),
                    json!({"spec": {"approvals": ["BeforeControlPlane"]}}),
                    json!({"spec": {"airGapped": {"enabled": true, "bundleConfigMap": "b"}}}),
                    json!({"spec": {"canary": {}}}),
                    json!({"spec": {"targetVersion": "1.34"}}),
                ],
            )
        },
        status_change: |rng| {
            choose(
                rng,
                vec![
                    json!({"status": {"directUpdateName": "u", "phase": "Executing"}}),
                    json!({"status": {"phase": "Someday"}}),
                    json!({"status": {"scheduledFor": "2021-03-04T05:06:07Z", "phase": "Scheduled"}}),
                    json!({"status": {"observedGeneration": -1}}),
                ],
            )
        },
    },
    Kind {
        group: OURS,
        version: "v1",
        plural: "updateschedules",
        word: "UpdateSchedule",
        namespaced: false,
        status: true,
        fresh: |rng, _name| {
            let pattern = pick(rng, &["latest-patch", "1.34.*", "v1.34.4"]);
            json!({"spec": {"schedule": "0 2 1 * *", "updatePolicy": {"targetVersionPattern": pattern}}})
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"suspended": true}}),
                    json!({"spec": {"schedule": "often"}}),
                    json!({"spec": {"maintenanceWindow": {"start": "01:00", "end": "03:00"}}}),
                    json!({"spec": {"maintenanceWindow": {"start": "01:00", "end": "01:00"}}}),
                    json!({"spec": {"maintenanceWindow": {"start": "25:00", "end": "01:00"}}}),
                    json!({"spec": {"updatePolicy": {"strategy": "canary"}}}),
                    json!({"spec": {"updatePolicy": {"concurrency": "25%"}}}),
                    json!({"spec": {"updatePolicy": {"targetVersionPattern": "newest"}}}),
                ],
            )
        },
        status_change: |rng| {
            choose(
                rng,
                vec![
                    json!({"status": {"lastScheduledTime": "2021-03-04T05:06:07Z", "active": "u-1"}}),
                    json!({"status": {"nextScheduledTime": "soon"}}),
                    json!({"status": {"conditions": [condition("Ready", "Unknown")]}}),
                ],
            )
        },
    },
    Kind {
        group: "",
        version: "v1",
        plural: "nodes",
        word: "Node",
        namespaced: false,
        status: true,
        fresh: |rng, _name| {
            let mut node =
                json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}});
            if rng.bool() {
                node["spec"]["providerID"] = json!("kind://a");
                node["status"] = json!({
                    "nodeInfo": node_info("v1.33.4"), "capacity": {"cpu": "2", "pods": "110"},
                    "conditions": [node_condition("Ready", "True")],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                });
            }
            node
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"unschedulable": true}}),
                    json!({"spec": {"unschedulable": null}}),
                    json!({"spec": {"unschedulable": false}}),
                    json!({"spec": {"unschedulable": true}, "metadata": {"annotations": {"cupcake/by": "run-1"}}}),
                    json!({"spec": {"unschedulable": null}, "metadata": {"annotations": {"cupcake/by": null}}}),
                    json!({"spec": {"taints": [{"key": "a", "value": "b", "effect": "NoExecute"}]}}),
                    json!({"spec": {"unschedulable": "yes"}}),
                    json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": ""}}}),
                    json!({"metadata": {"labels": {"kubernetes.io/hostname": "a b"}}}),
                ],
            )
        },
        status_change: |rng| {
            let version = pick(rng, &["v1.33.4", "v1.34.4"]);
            let ready = pick(rng, &["True", "False", "Unknown"]);
            choose(
                rng,
                vec![
                    json!({"status": {"nodeInfo": node_info(version)}}),
                    json!({"status": {"conditions": [node_condition("Ready", ready)]}}),
                    json!({"status": {"conditions": [node_condition("MemoryPressure", "False"), node_condition("Ready", ready)]}}),
                    json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}, {"type": "Hostname", "address": "n"}]}}),
                    json!({"status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "3900m", "memory": "1024Ki"}}}),
                    json!({"status": {"images": [{"names": ["a:1"], "sizeBytes": 7}]}}),
                ],
            )
        },
    },
    Kind {
        group: "",
        version: "v1",
        plural: "pods",
        word: "Pod",
        namespaced: true,
        status: true,
        fresh: |rng, _name| {
            let toleration =
                |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            let mut pod = json!({"spec": {
                "containers": [{"name": "web", "image": pick(rng, &["web:1", "web", "r.io/web:latest"])}],
                "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
            }});
            if !once_in(rng, 4) {
                pod["spec"]["nodeName"] = json!("node-1");
            }
            if once_in(rng, 3) {
                pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
                pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
            }
            pod
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"metadata": {"annotations": {"note": "x"}}}),
                    json!({"metadata": {"labels": {"tier": "back"}}}),
                    json!({"spec": {"nodeName": "node-2"}}),
                    json!({"spec": {"activeDeadlineSeconds": 60}}),
                    json!({"spec": {"terminationGracePeriodSeconds": 5}}),
                ],
            )
        },
        status_change: |rng| {
            let ready = pick(rng, &["True", "False"]);
            let phase = pick(rng, &["Pending", "Running", "Running", "Running", "Succeeded", "Failed"]);
            let condition = json!({"type": "Ready", "status": ready, "lastProbeTime": null, "lastTransitionTime": "2021-03-04T05:06:07Z"});
            choose(
                rng,
                vec![
                    json!({"status": {"phase": phase, "conditions": [condition]}}),
                    json!({"status": {"phase": "Running", "conditions": [condition], "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}}),
                    json!({"status": {"phase": phase}}),
                    json!({"status": {"startTime": "2021-03-04T05:06:07Z", "hostIP": "10.0.0.1"}}),
                ],
            )
        },
    },
    Kind {
        group: "policy",
        version: "v1",
        plural: "poddisruptionbudgets",
        word: "PodDisruptionBudget",
        namespaced: true,
        status: true,
        fresh: |rng, _name| {
            let mut budget =
                choose(rng, vec![json!({"spec": {"minAvailable": 1}}), json!({"spec": {"maxUnavailable": "50%"}})]);
            budget["spec"]["selector"] = json!({"matchLabels": {"conf": "@me@"}});
            if once_in(rng, 3) {
                budget["spec"]["unhealthyPodEvictionPolicy"] = json!(pick(rng, &["AlwaysAllow", "IfHealthyBudget"]));
            }
            budget
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"minAvailable": 2}}),
                    json!({"spec": {"minAvailable": "1"}}),
                    json!({"spec": {"minAvailable": null, "maxUnavailable": 1}}),
                    json!({"metadata": {"annotations": {"note": "x"}}}),
                ],
            )
        },
        status_change: |rng| {
            let (allowed, healthy) = (rng.u32(..3), rng.u32(..3));
            let generation = rng.u32(1..3);
            choose(
                rng,
                vec![
                    json!({"status": {"disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": generation}}),
                    json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 3}}),
                    json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 3}}),
                ],
            )
        },
    },
    Kind {
        group: "coordination.k8s.io",
        version: "v1",
        plural: "leases",
        word: "Lease",
        namespaced: true,
        status: false,
        fresh: |rng, _name| {
            json!({"spec": {
                "holderIdentity": pick(rng, &["a", "b"]), "leaseDurationSeconds": 15, "leaseTransitions": rng.u32(..3),
                "acquireTime": "2021-03-04T05:06:07.000000Z", "renewTime": "2021-03-04T05:06:07.123456Z",
            }})
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"spec": {"holderIdentity": "c", "renewTime": "2021-03-04T05:06:09.000001Z"}}),
                    json!({"spec": {"holderIdentity": null}}),
                    json!({"metadata": {"annotations": {"cupcake/epoch": "4"}}}),
                    json!({"spec": {"leaseDurationSeconds": 0}}),
                    json!({"spec": {"leaseTransitions": -1}}),
                    json!({"spec": {"leaseDurationSeconds": "x"}}),
                ],
            )
        },
        status_change: |_rng| json!({"status": {"phase": "none"}}),
    },
    Kind {
        group: "",
        version: "v1",
        plural: "events",
        word: "Event",
        namespaced: true,
        status: false,
        fresh: |rng, _name| {
            json!({
                "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "@ns@", "uid": "u-1"},
                "reason": pick(rng, &["Pulled", "Started"]), "message": "words", "type": pick(rng, &["Normal", "Warning"]),
                "source": {"component": "kubelet", "host": "n1"}, "count": 1,
                "firstTimestamp": "2021-03-04T05:06:07Z", "lastTimestamp": "2021-03-04T05:06:07Z",
            })
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"count": 2, "lastTimestamp": "2021-03-04T05:06:08Z"}),
                    json!({"message": "other words"}),
                    json!({"involvedObject": {"namespace": "elsewhere"}}),
                ],
            )
        },
        status_change: |_rng| json!({"status": {"phase": "none"}}),
    },
    Kind {
        group: "events.k8s.io",
        version: "v1",
        plural: "events",
        word: "Event",
        namespaced: true,
        status: false,
        fresh: |rng, _name| {
            json!({
                "eventTime": "2021-03-04T05:06:07.000000Z", "action": "Drain", "note": "words", "reason": "Drained",
                "regarding": {"apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "UpgradeRun", "name": "r", "namespace": "@ns@"},
                "reportingController": "cupcake/operator", "reportingInstance": "op-1", "type": pick(rng, &["Normal", "Warning"]),
            })
        },
        change: |rng| {
            choose(
                rng,
                vec![
                    json!({"series": {"count": 2, "lastObservedTime": "2021-03-04T05:06:09.000000Z"}}),
                    json!({"note": "other words"}),
                    json!({"action": null}),
                    json!({"type": "Odd"}),
                ],
            )
        },
        status_change: |_rng| json!({"status": {"phase": "none"}}),
    },
];

fn order(rng: &mut Rng) -> Value {
    let mut order = json!({
        "deadlineSeconds": 600, "epoch": rng.u32(..4), "targetVersion": "1.34.4",
        "key": {"runUid": "r-1", "vertex": "n/host-upgrade", "attempt": rng.u32(1..3)},
    });
    if rng.bool() {
        order["prepare"] =
            json!([{"kind": "kubeadm-upgrade-node/v1", "name": "k", "params": {"version": "1.34.4", "n": null}}]);
    }
    order
}

fn direct_update_change(rng: &mut Rng) -> Value {
    let request = json!({"requestId": pick(rng, &["q-1", "q-2"]), "vertex": "v"});
    choose(
        rng,
        vec![
            json!({"spec": {"concurrency": 3}}),
            json!({"spec": {"concurrency": "10%"}}),
            json!({"spec": {"concurrency": "0%"}}),
            json!({"spec": {"concurrency": 0}}),
            json!({"spec": {"concurrency": 1.5}}),
            json!({"spec": {"control": {"pause": {"requestId": "q-1", "reason": "why"}}}}),
            json!({"spec": {"control": {"pause": null}}}),
            json!({"spec": {"control": {"pause": {"reason": "why"}}}}),
            json!({"spec": {"control": {"retry": [request]}}}),
            json!({"spec": {"control": {"retry": [request, request]}}}),
            json!({"spec": {"control": {"skip": [request, {"requestId": "q-3", "vertex": "w", "run": "r"}]}}}),
            json!({"spec": {"components": ["kubeadm", "kubeadm"]}}),
            json!({"spec": {"components": ["kubelet", "docker"]}}),
            json!({"spec": {"components": []}}),
            json!({"spec": {"strategy": "canary"}}),
            json!({"spec": {"strategy": "canary", "canary": {"enabled": true, "nodes": ["w1"]}}}),
            json!({"spec": {"canary": {"enabled": true}}}),
            json!({"spec": {"canary": {"nodes": ["w1", "w1"]}}}),
            json!({"spec": {"strategy": "bold"}}),
            json!({"spec": {"drain": {"timeout": "5m", "podTimeout": "90s"}}}),
            json!({"spec": {"drain": {"timeout": "five"}}}),
            json!({"spec": {"drain": {}}}),
            json!({"spec": {"batchSize": 0}}),
            json!({"spec": {"dryRun": "yes"}}),
            json!({"spec": {"nodeSelector": {"role": "worker", "x": null}}}),
            json!({"spec": {"targetVersion": "1.34"}}),
            json!({"spec": {"targetVersion": "1.34.5"}}),
            json!({"spec": {"airGapped": {"enabled": true}}}),
            json!({"spec": {"approvals": ["BeforeControlPlane"]}}),
        ],
    )
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": "2021-03-04T05:06:07Z"})
}

fn node_condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "KubeletReady", "message": "words",
        "lastHeartbeatTime": "2021-03-04T05:06:07Z", "lastTransitionTime": "2021-03-04T05:06:07Z",
    })
}

fn node_info(version: &str) -> Value {
    json!({
        "architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "containerd://1.7.24", "kernelVersion": "6.1",
        "kubeProxyVersion": "", "kubeletVersion": version, "machineID": "m", "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12 (bookworm)", "systemUUID": "s",
    })
}

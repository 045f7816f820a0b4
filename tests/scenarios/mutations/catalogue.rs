//! What people get wrong in fields of that name, and what they may well write.

use super::generate::Way;
use serde_json::Value;

/// Values by name of the field, as JSON.
const BY_NAME: &str = r#"{
    "targetVersion": [
        "1.34", "1.33.4", "1.33.3", "1.31.1", "1.36.1", "1.39.0", "2.0.0", "1.34.04", "1.34.4-rc.1", "latest", "1.34.4+build", "1.34.99",
        "v1.34.4", "V1.34.4", "1.35.1", "1.34.*"
    ],
    "targetVersionPattern": [
        "latest", "latest-patch", "1.33.*", "1.34.*", "1.36.*", "1.99.*", "1.*", "*", "1.34.x", "1.32.1", "1.34.4", "1.33.4", "v1.34.*",
        "latest-minor"
    ],
    "path": [
        ["1.35.1", "1.34.2"], ["1.35.1"], ["1.34.2"], ["1.34.2", "1.34.2", "1.35.1"], ["1.33.3", "1.34.2", "1.35.1"], ["1.34", "1.35.1"],
        ["1.34.3", "1.35.1"], ["1.33.5", "1.34.2", "1.35.1"]
    ],
    "nodes": [
        ["no-such-node"], ["cp-1"], ["w-1", "no-such-node"], ["w-1", "w-1"], ["w-2"], ["w-9"],
        ["w-1", "w-2", "w-3", "w-4", "w-5", "w-6", "w-7", "w-8"]
    ],
    "node": ["no-such-node", "w-2", "cp-1", "w-9", "W-1"],
    "vertex": ["no-such-node", "w-2", "cp-1", "w-9", "W-1", "1.34.2/verify"],
    "nodeSelector": [
        {"no": "such"}, {"pool": "red"}, {"pool": "blue", "zone": "a"}, {"pool": ""}, {"in valid": "x"}, {"kubernetes.io/hostname": "w-1"}
    ],
    "check": ["CgroupV1", "DiskSpace", "EtcdStore", "handMadeChanges", "Downgrade", "NoSuchCheck"],
    "concurrency": ["0%", "1%", "50%", "99%", "100%", "101%", "010%", "10 %", "%", "two", "1.5%", "3"],
    "components": [
        ["kubelet"], ["kubeadm"], ["kubeadm", "kubelet"], ["kubeadm", "kubelet", "kubectl", "etcd"],
        ["kubeadm", "kubelet", "kubectl", "containerd"], ["kubeadm", "kubelett"]
    ],
    "containerd": ["1.7.27", "1.7.27-1", "1.7.9", "v1.7.27", "1.7", "1.7.*", "latest", "1.7.27_1", "2.1.4", "9.9.9-1"],
    "approvals": [["BeforeEachHop"], ["AfterCanary"], ["BeforeLunch"]],
    "gate": ["1.34.2/control-plane-gate", "1.35.1/canary-gate", "canary-gate", "1.99.0/hop-gate"],
    "maintenanceWindow": [
        {"start": "02:00", "end": "02:00", "timezone": "UTC"}, {"start": "23:00", "end": "01:00", "timezone": "UTC"},
        {"start": "02:00", "end": "02:01", "timezone": "UTC"}, {"start": "00:00", "end": "23:59", "timezone": "UTC"}
    ],
    "start": ["24:00", "7:00", "22:60", "22:30:00", "22", "10pm", "00:00", "23:59", "12:00"],
    "end": ["24:00", "7:00", "22:60", "22:30:00", "22", "10pm", "00:00", "23:59", "12:00"],
    "timezone": ["UTC", "Europe/Amsterdan", "America/New_York", "Mars/Olympus", "+01:00", "CEST", "europe/amsterdam", "Asia/Kathmandu"],
    "timeZone": ["UTC", "Europe/Amsterdan", "America/New_York", "Mars/Olympus", "+01:00", "CEST", "europe/amsterdam", "Asia/Kathmandu"],
    "days": [["Saturday", "Saturday"], ["Caturday"], ["saturday"], ["Monday"]],
    "schedule": [
        "0 2 30 2 *", "0 2 31 4,6 *", "0 2 * *", "60 2 * * *", "0 24 * * *", "0 2 1 13 *", "0 2 * * 8", "@daily", "0 2 1 * * 2027", "* * * * *",
        "0 2 29 2 *", "*/0 * * * *", "0 2 1 * MON", "0 2 L * *", "every month", "0 3 1 * *"
    ],
    "scheduleAt": [
        "tomorrow", "2027-01-09", "2027-01-09T22:00:00", "2027-02-30T22:00:00Z", "2027-01-10T22:00:00+01:00", "2020-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z", "2027-01-09T25:00:00Z"
    ],
    "soak": ["0s", "1ns", "1s", "-5m", "5m", "1h30m", "24h", "25h", "9999h", "1d", "1.5h", "90", "5 m", "9223372036854775807h"],
    "nodeTimeout": ["0s", "1ns", "1s", "-5m", "5m", "10m", "1h30m", "24h", "25h", "9999h", "1d", "1.5h", "90", "5 m", "9223372036854775807h"],
    "operationTimeout": ["0s", "1ns", "1s", "-5m", "5m", "1h30m", "24h", "9999h", "1d", "1.5h", "90", "5 m", "9223372036854775807h"],
    "timeout": ["0s", "1ns", "1s", "-5m", "5m", "10m", "1h30m", "24h", "9999h", "1d", "1.5h", "90", "5 m", "9223372036854775807h"],
    "podTimeout": ["0s", "1ns", "1s", "-5m", "5m", "1h30m", "24h", "9999h", "1d", "1.5h", "90", "5 m", "9223372036854775807h"]
}"#;

/// Values for the field at the end of the way.
pub fn values(way: &Way) -> Vec<Value> {
    let by_name: Value = serde_json::from_str(BY_NAME).unwrap();
    by_name[way.last()].as_array().cloned().unwrap_or_default()
}

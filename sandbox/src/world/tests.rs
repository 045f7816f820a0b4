#![expect(clippy::disallowed_methods, reason = "these tests cut short and wait on the world's own virtual time")]

use super::*;
use crate::machine::SimHost;
use crate::machine::fault::{Component, Life};
use crate::machine::kubeadm::KUBE_PROXY;
use cupcake_steps::ports::host::HostOps as _;
use cupcake_steps::ports::host::{Images, KubeProxy, KubeadmUpgrade, Package};

const FROM: KubeVersion = KubeVersion::new(1, 33, 4);
const TO: KubeVersion = KubeVersion::new(1, 34, 4);

fn start() -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn config(control_planes: u32, workers: u32) -> WorldConfig {
    WorldConfig { control_planes, workers, ..WorldConfig::new(FROM, start()) }
}

/// A cluster whose own controllers run, without any component of ours.
fn in_quiet_world<T>(config: WorldConfig, test: impl AsyncFnOnce(&World) -> T) -> T {
    let runtime = runtime(config.speed).unwrap();
    runtime.block_on(async {
        let world = World::new(config).unwrap();
        let (agenda, clock) = (world.site.agenda.clone(), world.clock());
        world.tasks.lock().unwrap().spawn(async move { agenda.run(clock).await });
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        test(&world).await
    })
}

fn host(world: &World, name: &str) -> SimHost {
    SimHost::new(Arc::clone(world.machine(name).unwrap()), Life::new(Component::Runner, name))
}

fn pods(world: &World, of: &str) -> Vec<Value> {
    let pods = world.server().list("", "pods");
    pods.iter().filter(|pod| pod.name().starts_with(of)).map(|pod| pod.value().clone()).collect()
}

fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap()
}

/// The documented way of a control-plane node, without its kubelet.
async fn upgrade_control_plane(world: &World, name: &str, how: KubeadmUpgrade) {
    let host = host(world, name);
    host.switch_repository(TO.minor_version()).await.unwrap();
    host.install(&[Package::Kubeadm], &TO).await.unwrap();
    host.pull_images(&Images::ControlPlane { version: TO }).await.unwrap();
    host.kubeadm_upgrade(how, &TO, KubeProxy::Upgrade).await.unwrap();
}

#[test]
fn a_new_cluster_runs_its_workload_and_its_addons() {
    in_quiet_world(config(3, 5), async |world| {
        assert_eq!(pods(world, "shop").len(), 10);
        assert_eq!(pods(world, "kube-proxy").len(), 8);
        assert_eq!(pods(world, "kube-apiserver").len(), 3);
        assert!(pods(world, "").iter().all(|pod| pod["status"]["phase"] == "Running"));
        let spread = pods(world, "shop").iter().filter(|pod| pod["spec"]["nodeName"] == "w-1").count();
        assert_eq!(spread, 2, "two pods on each worker");
    });
}

#[test]
fn the_last_control_plane_node_upgrades_the_addons() {
    in_quiet_world(config(2, 1), async |world| {
        upgrade_control_plane(world, "cp-1", KubeadmUpgrade::Apply).await;
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        assert!(pods(world, "kube-proxy").iter().all(|pod| image(pod).ends_with("v1.33.4")));
        upgrade_control_plane(world, "cp-2", KubeadmUpgrade::Node).await;
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        assert!(pods(world, "kube-proxy").iter().all(|pod| image(pod).ends_with("v1.34.4")));
        assert!(pods(world, "coredns").iter().all(|pod| image(pod).ends_with("v1.12.1")));
        assert_eq!(pods(world, "coredns").len(), 2);
        assert!(pods(world, "etcd").iter().all(|pod| image(pod).ends_with("3.6.5-0")));
    });
}

#[test]
fn a_kube_proxy_that_somebody_took_away_comes_back_with_kubeadm_unless_that_is_told_to_leave_it_out() {
    for (kube_proxy, comes_back) in [(KubeProxy::Upgrade, true), (KubeProxy::LeaveOut, false)] {
        in_quiet_world(config(1, 1), async |world| {
            let host = host(world, "cp-1");
            let person = world.site.kube("person");
            let uid = person.get(KUBE_PROXY).unwrap().unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
            person.delete(KUBE_PROXY, &uid).unwrap();
            host.switch_repository(TO.minor_version()).await.unwrap();
            host.install(&[Package::Kubeadm], &TO).await.unwrap();
            host.kubeadm_upgrade(KubeadmUpgrade::Apply, &TO, kube_proxy).await.unwrap();
            assert_eq!(person.get(KUBE_PROXY).unwrap().is_some(), comes_back, "{kube_proxy:?}");
        });
    }
}

#[test]
fn kubeadm_refuses_what_the_real_one_refuses() {
    in_quiet_world(config(1, 1), async |world| {
        let (first, worker) = (host(world, "cp-1"), host(world, "w-1"));
        let refused = first.kubeadm_upgrade(KubeadmUpgrade::Apply, &TO, KubeProxy::Upgrade).await.unwrap_err();
        assert!(refused.to_string().starts_with("KubeadmSkew"), "{refused}");
        let refused = worker.install(&[Package::Kubeadm], &TO).await.unwrap_err();
        assert!(refused.to_string().starts_with("VersionNotOffered"), "{refused}");
        worker.switch_repository(TO.minor_version()).await.unwrap();
        worker.install(&[Package::Kubeadm], &TO).await.unwrap();
        let refused = worker.kubeadm_upgrade(KubeadmUpgrade::Node, &TO, KubeProxy::Upgrade).await.unwrap_err();
        assert!(refused.to_string().starts_with("KubeadmConfigOlder"), "{refused}");
        let refused = worker.kubeadm_upgrade(KubeadmUpgrade::Apply, &TO, KubeProxy::Upgrade).await.unwrap_err();
        assert!(refused.to_string().starts_with("NotAControlPlane"), "{refused}");
    });
}

#[test]
fn an_install_that_is_cut_short_leaves_a_half_configured_package_that_is_not_held() {
    in_quiet_world(config(1, 1), async |world| {
        let worker = host(world, "w-1");
        worker.switch_repository(TO.minor_version()).await.unwrap();
        let cut = tokio::time::timeout(std::time::Duration::from_secs(2), worker.install(&[Package::Kubeadm], &TO));
        cut.await.unwrap_err();
        let package = worker.package(Package::Kubeadm).await.unwrap();
        assert!(!package.whole && !package.held, "{package:?}");
        worker.install(&[Package::Kubeadm], &TO).await.unwrap();
        assert!(worker.package(Package::Kubeadm).await.unwrap().is_at(&TO));
        assert_eq!((world.site.ledger.duplicated(), world.site.ledger.reruns_after_interruption()), (0, 1));
    });
}

#[test]
fn a_restarted_kubelet_reports_its_new_version() {
    in_quiet_world(config(1, 1), async |world| {
        let worker = host(world, "w-1");
        worker.switch_repository(TO.minor_version()).await.unwrap();
        worker.install(&[Package::Kubelet, Package::Kubectl], &TO).await.unwrap();
        assert!(!worker.kubelet().await.unwrap().runs_installed);
        let version = |world: &World| node_outcome(world.server().get("", "nodes", "", "w-1").unwrap().value()).version;
        assert_eq!(version(world), "1.33.4");
        worker.restart_kubelet().await.unwrap();
        assert!(worker.kubelet().await.unwrap().runs_installed);
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(3)).await;
        assert_eq!(version(world), "1.34.4");
    });
}

#[test]
fn a_node_whose_kubelet_is_silent_for_forty_seconds_is_unknown() {
    in_quiet_world(config(1, 1), async |world| {
        let ready = |world: &World| {
            let node = world.server().get("", "nodes", "", "w-1").unwrap();
            node.value()["status"]["conditions"][3]["status"].clone()
        };
        world.lose_kubelet("w-1");
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(39)).await;
        assert_eq!(ready(world), "True");
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(2)).await;
        assert_eq!(ready(world), "Unknown");
    });
}

#[test]
fn a_single_control_plane_is_away_while_its_etcd_restarts() {
    in_quiet_world(config(1, 1), async |world| {
        let first = host(world, "cp-1");
        first.switch_repository(TO.minor_version()).await.unwrap();
        first.install(&[Package::Kubeadm], &TO).await.unwrap();
        let client = world.server().client("somebody");
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client);
        let mut away = 0;
        let watch = async {
            loop {
                away += usize::from(nodes.list(&kube::api::ListParams::default()).await.is_err());
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            done = first.kubeadm_upgrade(KubeadmUpgrade::Apply, &TO, KubeProxy::Upgrade) => done.unwrap(),
            () = watch => {}
        }
        assert!((10..60).contains(&away), "{away} s");
        assert!(nodes.list(&kube::api::ListParams::default()).await.is_ok());
    });
}

#[test]
fn an_evicted_pod_is_replaced_on_another_node() {
    in_quiet_world(config(1, 2), async |world| {
        let admin = world.site.kube("admin");
        admin.merge("/api/v1/nodes/w-1", &json!({"spec": {"unschedulable": true}})).unwrap();
        let victim = pods(world, "shop").into_iter().find(|pod| pod["spec"]["nodeName"] == "w-1").unwrap();
        let name = victim["metadata"]["name"].as_str().unwrap();
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"},
        });
        admin.create(&format!("/api/v1/namespaces/default/pods/{name}/eviction"), &eviction).unwrap();
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(30)).await;
        let left = pods(world, "shop");
        assert!(left.iter().all(|pod| pod["metadata"]["name"] != name));
        assert_eq!(left.iter().filter(|pod| pod["spec"]["nodeName"] == "w-2").count(), 3);
    });
}

#[test]
fn the_pods_of_a_node_that_is_deleted_are_replaced_on_the_others_and_nobody_waits_for_those_that_went() {
    // Some are Ready by then, or none is.
    for seconds in [0, 60] {
        let runtime = runtime(Speed::Fastest).unwrap();
        runtime.block_on(async {
            let world = World::new(config(1, 2)).unwrap();
            let (agenda, clock) = (world.site.agenda.clone(), world.clock());
            world.tasks.lock().unwrap().spawn(async move { agenda.run(clock).await });
            world.site.clock.sleep_until(world.now() + TimeDelta::milliseconds(500 + 1_000 * seconds)).await;
            faults::delete_node(&world.site, world.server(), "w-1");
            world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
            let left = pods(&world, "shop");
            assert_eq!(left.iter().filter(|pod| pod["spec"]["nodeName"] == "w-2").count(), 4, "{seconds} s");
            let set = world.server().get("apps", "daemonsets", "kube-system", "kube-proxy").unwrap();
            let counts = |field: &str| set.value()["status"][field].as_u64();
            let numbers = ["desiredNumberScheduled", "currentNumberScheduled", "numberReady"].map(counts);
            assert_eq!(numbers, [Some(2); 3], "{seconds} s");
        });
    }
}

#[test]
fn after_a_power_cut_what_was_enabled_starts_again_under_a_new_boot() {
    in_quiet_world(config(1, 1), async |world| {
        let machine = Arc::clone(world.machine("w-1").unwrap());
        let boot = host(world, "w-1").boot_id().await.unwrap();
        machine.install_program(Arc::new(|_machine, _life| {}));
        machine.start_unit();
        machine.power_cycle();
        assert!(!machine.kubelet_is_active());
        world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        assert!(machine.kubelet_is_active());
        assert_eq!(machine.unit_starts(), 2);
        assert_ne!(host(world, "w-1").boot_id().await.unwrap(), boot);
    });
}

#[tokio::test(start_paused = true)]
async fn the_disk_keeps_what_every_disk_promises() {
    let world = World::new(config(1, 0)).unwrap();
    let life = Life::new(Component::Runner, "cp-1");
    let machine = world.machine("cp-1").unwrap();
    let store = Arc::clone(machine.disk());
    let ledger = world.site.ledger.clone();
    let disk = crate::machine::disk::SimDisk::new("cp-1", store, life, FaultPlan::default(), ledger);
    cupcake_steps::ports::disk_suite::suite(&disk).await;
}

#[test]
fn a_world_out_of_bounds_is_refused() {
    let runtime = runtime(Speed::Fastest).unwrap();
    runtime.block_on(async {
        assert!(matches!(World::new(config(0, 1)), Err(WorldError::Config(_))));
        assert!(matches!(World::new(config(1, WORKERS_MAX + 1)), Err(WorldError::Config(_))));
    });
}

/// One process makes thousands of them.
#[test]
fn a_world_that_is_over_leaves_nothing_behind() {
    for judged in [false, true] {
        let runtime = runtime(Speed::Fastest).unwrap();
        let (site, ear) = runtime.block_on(async {
            let world = World::new(WorldConfig { judged, ..config(1, 1) }).unwrap();
            world.start();
            world.site.clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
            (Arc::downgrade(&world.site), Arc::downgrade(&world.ear))
        });
        drop(runtime);
        assert!(site.upgrade().is_none(), "somebody still holds what the machines share; judged: {judged}");
        assert!(ear.upgrade().is_none(), "somebody still listens; judged: {judged}");
    }
}

#[test]
fn a_program_that_asks_without_a_wait_is_ended_and_time_goes_on() {
    in_quiet_world(WorldConfig { judged: true, ..config(1, 1) }, async |world| {
        let client = world.server().client("storm");
        world.tasks.lock().unwrap().spawn(async move {
            let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client);
            loop {
                nodes.get("w-1").await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let later = world.now() + TimeDelta::hours(1);
        world.clock().sleep_until(later).await;
        assert_eq!(world.now(), later);
        let violated: Vec<&str> = world.violations().iter().map(|violation| violation.invariant).collect();
        assert_eq!(violated, ["I9"]);
    });
}

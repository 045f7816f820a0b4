//! Attempts of a node after one that failed behind kubeadm: what it recorded counts, whatever dies, unless something says otherwise.

use super::*;

/// The order of that attempt, which goes on from those before it.
fn going_on(attempt: u32) -> Order {
    let mut next = order(attempt);
    let before: Vec<String> = (1..attempt).rev().map(|one| run_name(&order(one).key).to_string()).collect();
    next.prepare[2].params.insert(params::SUCCESS_OF.to_owned(), before.into());
    next
}

/// A machine whose first attempt failed after kubeadm had ended well.
async fn failed_after_kubeadm(host: FakeHost) -> World {
    let world = World::new(host);
    world.host.fail("install kubelet", HostError::NeedsOperator(Reason::new("MirrorAway", "no answer")));
    world.put(&order(1)).await;
    assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Failed));
    world
}

fn kubeadms(world: &World) -> usize {
    world.host.done().iter().filter(|effect| effect.starts_with("kubeadm upgrade")).count()
}

#[tokio::test(start_paused = true)]
async fn kubeadm_runs_once_though_something_after_it_fails_and_again_where_a_person_asks() {
    let world = failed_after_kubeadm(FakeHost::worker(OLD)).await;
    world.host.fail("install kubelet", HostError::NeedsOperator(Reason::new("MirrorAway", "no answer")));
    for attempt in [2, 3] {
        world.put(&going_on(attempt)).await;
        world.live_through(&going_on(attempt)).await;
    }
    assert_eq!(world.answer().await.unwrap().verdict, Verdict::Done);
    assert_eq!(kubeadms(&world), 1, "{:?}", world.host.done());
    let asked = failed_after_kubeadm(FakeHost::worker(OLD)).await;
    asked.put(&order(2)).await;
    asked.live_through(&order(2)).await;
    assert_eq!(kubeadms(&asked), 2, "a person asked: {:?}", asked.host.done());
}

#[tokio::test(start_paused = true)]
async fn a_runner_killed_at_any_write_of_a_second_attempt_does_not_run_kubeadm_again() {
    let untouched = failed_after_kubeadm(FakeHost::worker(OLD)).await;
    let before = untouched.disk.writes();
    untouched.put(&going_on(2)).await;
    untouched.live_through(&going_on(2)).await;
    let writes = untouched.disk.writes();
    assert!(writes > before + 8, "{before} to {writes}");
    for write in before + 1..=writes {
        for how in [Crash::Before, Crash::Torn, Crash::After] {
            let world = failed_after_kubeadm(FakeHost::worker(OLD)).await;
            world.put(&going_on(2)).await;
            world.disk.crash_at(write, how);
            assert_eq!(world.live_through(&going_on(2)).await, RunnerEnd::Answered(TaskState::Done), "{how:?} {write}");
            assert_eq!(kubeadms(&world), 1, "{how:?} {write}: {:?}", world.host.done());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_was_put_back_between_two_attempts_is_kubeadms_to_mend() {
    for (component, runs) in [(None, 1), (Some("etcd"), 2), (Some("kube-apiserver"), 2)] {
        let world = failed_after_kubeadm(FakeHost::control_plane(OLD)).await;
        if let Some(component) = component {
            world.host.put_back(component, "v1.33.4");
        }
        world.put(&going_on(2)).await;
        world.live_through(&going_on(2)).await;
        assert_eq!(kubeadms(&world), runs, "{component:?}: {:?}", world.host.done());
    }
}

//! What a step waits for on the machine is answered as it changes, and that it waits no more.

use super::*;
use cupcake_steps::ports::fake_host::etcd_of;

/// A control-plane node's order that begins with the look at etcd.
fn looking() -> Order {
    let control_plane = ["w-1", "w-2", "w-3"].map(str::to_owned).to_vec();
    let check = step(params::CHECK_STEP, params::CHECK_ETCD, &params::CheckEtcd { control_plane, store: None });
    let pull = step(params::PULL_STEP, params::PULL_IMAGES, &params::PullImages { version: NEW });
    Order { prepare: vec![check, pull], finish: Vec::new(), ..order(1) }
}

/// A machine of three whose second member does not answer.
fn with_a_member_away() -> World {
    let world = World::new(FakeHost::control_plane(OLD));
    let mut etcd = etcd_of(&["w-1", "w-2", "w-3"]);
    etcd.members[1].healthy = false;
    world.host.see_etcd(Ok(etcd));
    world
}

#[tokio::test(start_paused = true)]
async fn what_a_step_waits_for_is_answered_and_that_it_waits_no_more() {
    let world = with_a_member_away();
    world.put(&looking()).await;
    let operator = async {
        let (disk, mut seen, mut told) = (world.disk.steady(), 0, Vec::new());
        loop {
            seen = disk.changed(FOLDER, seen).await;
            let Some(answer) = world.answer().await else { continue };
            let waits = answer.waiting.as_ref().map(|waiting| waiting.code.clone());
            told.push((answer.verdict.state(), answer.step.clone(), waits));
            if answer.waiting.is_some() {
                assert!(
                    answer.message.unwrap().starts_with("check-etcd waits: members of etcd that do not answer: w-2")
                );
                world.host.see_etcd(Ok(etcd_of(&["w-1", "w-2", "w-3"])));
            }
            if answer.verdict.state().is_final() {
                return told;
            }
        }
    };
    let (end, told) = futures::future::join(Box::pin(world.live()), Box::pin(operator)).await;
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Done));
    let waited = (TaskState::Working, Some("check-etcd".to_owned()), Some("EtcdMemberAway".to_owned()));
    assert_eq!(told[0], waited, "{told:?}");
    assert!(told[1..].iter().all(|(_, _, waits)| waits.is_none()), "{told:?}");
    assert_eq!(world.host.done(), ["pull images 1.34.4"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_stays_away_ends_the_order_before_kubeadm_with_what_to_do() {
    let world = with_a_member_away();
    world.put(&looking()).await;
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    let answer = world.answer().await.unwrap();
    let error = answer.verdict.error().unwrap();
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsOperator, "EtcdMemberAway"));
    assert!(error.message.ends_with("logs etcd-NODE), then retry"), "{}", error.message);
    assert_eq!((answer.waiting, answer.step.as_deref()), (None, Some("check-etcd")));
    let waited = (world.clock.now() - DateTime::from_timestamp(1_790_000_000, 0).unwrap()).num_seconds();
    assert!((300..330).contains(&waited), "{waited} s");
    assert_eq!(world.host.done(), Vec::<String>::new());
}

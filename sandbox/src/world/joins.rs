//! Nodes that come in the middle: machines that join, and nodes that are deleted and register anew.

use super::faults::delete_node;
use super::{World, WorldError, birth, spawner, watched};
use crate::machine::SimMachine;
use cupcake_crds::values::{KubeVersion, NodeRole};
use std::sync::{Arc, PoisonError};

impl World {
    /// A worker joins that runs `version` in every part, as `kubeadm join` leaves it: its Node is Ready at once, its agent starts.
    ///
    /// No planned fault reaches it, and what [`World::machines`] and [`World::outcome`] tell of machines leaves it aside. For a started
    /// world that is not judged.
    ///
    /// # Errors
    /// When the API refuses its Node: it is away for the moment, or there is a Node of that name.
    pub fn join(&self, name: &str, version: KubeVersion) -> Result<Arc<SimMachine>, WorldError> {
        let machine = SimMachine::new(name, NodeRole::Worker, version, Arc::clone(&self.site));
        birth::register(&machine, version, &self.site, &self.site.kube("kubeadm/join"))?;
        self.components.workloads.joins(&machine);
        machine.install_program(self.components.runner_program(spawner(&self.tasks, &self.ear)));
        let agent = Box::pin(Arc::clone(&self.components).agent(Arc::clone(&machine)));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(watched(Arc::clone(&self.ear), agent));
        drop(tasks);
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&machine));
        Ok(machine)
    }

    /// A person deletes the Node of a machine and boots the machine: its kubelet registers it anew, under another UID.
    pub fn register_anew(&self, node: &str) {
        delete_node(&self.site, &self.server, node);
        if let Some(machine) = self.machine(node) {
            machine.power_cycle();
        }
    }
}

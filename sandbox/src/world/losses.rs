//! What a test takes away from a world for as long as it likes, and gives back: an agent, a kubelet, the API.

use super::World;
use crate::machine::fault::Component;
use chrono::TimeDelta;

/// Longer than any test.
const EVER: TimeDelta = TimeDelta::days(3_650);

impl World {
    /// The agent of that node is stopped (SIGSTOP), and nobody lets it go on.
    pub fn lose_agent(&self, node: &str) {
        let until = self.now() + EVER;
        for life in self.components.gate.lives_of(Component::Agent, node) {
            life.stop_until(until);
        }
    }

    /// The kubelet of that node ends, and comes back only with the next order that restarts it, or with [`World::restore_kubelet`].
    pub fn lose_kubelet(&self, node: &str) {
        if let Some(machine) = self.machine(node) {
            machine.stop_kubelet();
        }
    }

    /// The kubelet of that node is started again.
    pub fn restore_kubelet(&self, node: &str) {
        if let Some(machine) = self.machine(node) {
            machine.start_again();
        }
    }

    /// From now on no request gets through, or they do again.
    pub fn cut_off(&self, cut_off: bool) {
        self.site.control_plane.cut_off(cut_off);
        if cut_off {
            self.server.close_watches();
        }
    }
}

//! systemd: the runner's unit, which outlives the agent and, enabled, a reboot; and the machine's power.

use super::control_plane::Part;
use super::fault::{Component, Life};
use super::releases::STATIC_PODS;
use super::state::SimMachine;
use super::timing::Act;
use chrono::TimeDelta;
use cupcake_crds::values::NodeRole;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The runner's `RestartSec`.
const RESTART_SECONDS: i64 = 1;

/// What the unit runs: it gets the machine and its life, and has to call [`SimMachine::unit_ended`].
pub type Program = Arc<dyn Fn(Arc<SimMachine>, Life) + Send + Sync>;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitEnd {
    /// By itself: the unit is disabled and rests.
    Finished,
    /// It was asked to stop (`systemctl stop`): the unit rests until a boot or somebody starts it, since it stays enabled.
    Stopped,
    /// Not by itself: it is started again (`Restart=on-failure`, no limit).
    Crashed,
}

/// The runner's unit on one machine.
#[derive(Default)]
pub(super) struct Unit {
    program: Option<Program>,
    enabled: bool,
    standing: Standing,
    starts: u64,
    /// The program where a person started it beside the unit.
    by_hand: Vec<Life>,
}

#[derive(Default)]
enum Standing {
    #[default]
    Inactive,
    /// A start is entered.
    Activating,
    Active(Life),
}

impl SimMachine {
    fn unit(&self) -> MutexGuard<'_, Unit> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Installs the runner's program.
    pub fn install_program(&self, program: Program) {
        self.unit().program = Some(program);
    }

    /// Removes it again.
    pub fn remove_program(&self) {
        let program = self.unit().program.take();
        drop(program);
    }

    /// `systemctl enable --now`: starts the unit unless it is active or about to be.
    pub fn start_unit(self: &Arc<Self>) {
        let mut unit = self.unit();
        unit.enabled = true;
        match unit.standing {
            Standing::Active(_) | Standing::Activating => {}
            Standing::Inactive => self.launch(&mut unit),
        }
    }

    /// Whether the unit is active or about to be.
    pub fn unit_is_active(&self) -> bool {
        match self.unit().standing {
            Standing::Active(_) | Standing::Activating => true,
            Standing::Inactive => false,
        }
    }

    /// How often the unit was started.
    pub fn unit_starts(&self) -> u64 {
        self.unit().starts
    }

    fn launch(self: &Arc<Self>, unit: &mut Unit) {
        let Some(program) = unit.program.clone() else {
            return;
        };
        let life = Life::new(Component::Runner, &self.name);
        unit.standing = Standing::Active(life.clone());
        unit.starts += 1;
        let machine = Arc::clone(self);
        // systemd starts it a moment later; the caller must not find itself inside the program.
        self.site.after(TimeDelta::milliseconds(20), move || program(machine, life));
    }

    /// A person starts the program by hand; systemd knows nothing of it.
    pub fn start_by_hand(self: &Arc<Self>) {
        let life = Life::new(Component::Runner, &self.name);
        let mut unit = self.unit();
        unit.by_hand.retain(|life| !life.is_over());
        unit.by_hand.push(life.clone());
        let (machine, program) = (Arc::clone(self), unit.program.clone());
        self.site.after(TimeDelta::milliseconds(20), move || {
            if let Some(program) = program.filter(|_| !life.is_over()) {
                program(machine, life);
            }
        });
    }

    /// The program of that life ended.
    pub fn unit_ended(self: &Arc<Self>, life: &Life, end: UnitEnd) {
        let was_over = life.is_over();
        life.end();
        let mut unit = self.unit();
        match &unit.standing {
            Standing::Active(active) if active.is(life) => {}
            // The machine was cut from power meanwhile, or another life began.
            Standing::Active(_) | Standing::Activating | Standing::Inactive => return,
        }
        match end {
            UnitEnd::Finished if !was_over => {
                unit.standing = Standing::Inactive;
                unit.enabled = false;
            }
            UnitEnd::Stopped if !was_over => unit.standing = Standing::Inactive,
            UnitEnd::Finished | UnitEnd::Stopped | UnitEnd::Crashed => {
                self.start_later(&mut unit, TimeDelta::seconds(RESTART_SECONDS));
            }
        }
    }

    fn start_later(self: &Arc<Self>, unit: &mut Unit, span: TimeDelta) {
        unit.standing = Standing::Activating;
        let machine = Arc::clone(self);
        let boot = self.state().boots;
        self.site.after(span, move || {
            let mut unit = machine.unit();
            let same_boot = machine.state().boots == boot;
            if same_boot && matches!(unit.standing, Standing::Activating) {
                machine.launch(&mut unit);
            }
        });
    }

    /// Whether it has lost its power, and is not up again.
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// The power fails and comes back: every process ends at once, what is enabled starts again after the boot.
    pub fn power_cycle(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.boots += 1;
            state.down = true;
            state.running.clear();
            state.kubelet.restarts = 0;
        }
        if self.role == NodeRole::ControlPlane {
            let api_server = self.site.control_plane.stops(&self.name, Part::ApiServer);
            let etcd = self.site.control_plane.stops(&self.name, Part::Etcd);
            if api_server || etcd {
                self.site.api.went_away();
            }
        }
        let generation = self.stop_kubelet();
        let boot = self.draw(Act::Boot);
        let machine = Arc::clone(self);
        self.site.after(boot, move || {
            machine.state().booted = Some(machine.site.now());
            machine.state().down = false;
            machine.state().containerd.boots();
            machine.start_kubelet(generation);
            if machine.role == NodeRole::ControlPlane {
                for pod in STATIC_PODS {
                    machine.static_pod_stops(pod);
                }
            }
        });
        let mut unit = self.unit();
        if let Standing::Active(life) = &unit.standing {
            life.end();
        }
        for life in unit.by_hand.drain(..) {
            life.end();
        }
        unit.standing = Standing::Inactive;
        if unit.enabled {
            self.start_later(&mut unit, boot);
        }
    }
}

//! Programs of the machine: the only place of the tree that starts any.
//!
//! ```text
//!   Program ──run──► child in a process group of its own ──► Finished { stdout } | ProgramError
//!                    closed environment, no standard input, time limit, bounded output
//! ```
//! A dropped run kills the whole group at once; when the runner itself is killed, its systemd unit ends what is left.

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Where programs are looked for, whatever the runner's own environment says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many bytes of output a program may give that is asked something; `crictl images` of a large node stays below 1 MB.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many lines of a failed program stand in its error, and how long each may be.
const LAST_LINES_MAX: usize = 12;
const LINE_BYTES_MAX: usize = 400;
/// How long a program may take to end itself after its time is over.
const END_SECONDS_MAX: u64 = 10;
/// How long its streams may stay open after it ended: a daemon that it left behind may hold them for ever.
const STREAMS_SECONDS_MAX: u64 = 2;

/// Where programs are looked for; a test may put its own there.
fn path() -> String {
    #[cfg(test)]
    if let Some(path) = super::test_folder::programs() {
        return path;
    }
    PATH.to_owned()
}

/// A program about to be run: plain arguments, never a shell.
#[derive(Debug, Clone)]
pub struct Program {
    name: &'static str,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    limit: Duration,
    told: bool,
}

/// A program that ended with status 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What it wrote to its standard output, whole; empty for a program that does something.
    pub stdout: String,
    /// The last lines of both its streams.
    pub last_lines: String,
}

/// Why a program did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such program on this machine.
    #[error("{program} is not installed: install it, or repair PATH on this machine")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The system did not start it or lost it.
    #[error("{command} could not be run")]
    System {
        /// The whole command.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It took longer than it may.
    #[error("{command} did not end within {limit_seconds} s and was ended; its last lines: {last_lines}")]
    TimedOut {
        /// The whole command.
        command: String,
        /// The limit.
        limit_seconds: u64,
        /// The last lines of both its streams.
        last_lines: String,
    },
    /// It ended with another status than 0.
    #[error("{command} ended with {status}; its last lines: {last_lines}")]
    Failed {
        /// The whole command.
        command: String,
        /// `exit status: 100`, or the signal.
        status: String,
        /// The exit status, if no signal ended it.
        code: Option<i32>,
        /// The last lines of both its streams.
        last_lines: String,
        /// What it wrote to its standard output.
        stdout: String,
    },
    /// It wrote more than a program of its kind does.
    #[error("{command} wrote more than {bytes_max} bytes")]
    TooMuchOutput {
        /// The whole command.
        command: String,
        /// What is allowed.
        bytes_max: usize,
    },
}

impl ProgramError {
    /// The last lines, empty where there are none.
    pub fn last_lines(&self) -> &str {
        match self {
            Self::TimedOut { last_lines, .. } | Self::Failed { last_lines, .. } => last_lines,
            Self::Missing { .. } | Self::System { .. } | Self::TooMuchOutput { .. } => "",
        }
    }
}

impl Program {
    /// A program that only answers a question: 60 s.
    pub fn asking<A: Into<String>>(name: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            name,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            limit: Duration::from_secs(60),
            told: false,
        }
    }

    /// A program that changes something: what it says goes to the log, line by line.
    pub fn doing<A: Into<String>>(name: &'static str, limit: Duration, arguments: impl IntoIterator<Item = A>) -> Self {
        Self { limit, told: true, ..Self::asking(name, arguments) }
    }

    /// With these variables too.
    pub fn with(mut self, variables: &BTreeMap<String, String>) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    fn command_line(&self) -> String {
        std::iter::once(self.name).chain(self.arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    ///
    /// # Guarantees
    /// The child sees PATH, HOME, LC_ALL=C, TZ=UTC and what was given, nothing else, and has no input. When its time is over
    /// its process group gets SIGTERM, and SIGKILL once it ended or ten seconds later. Dropping the future kills the group at once.
    pub async fn run(self) -> Result<Finished, ProgramError> {
        if !self.told {
            return self.run_to_end().await;
        }
        // One line before and one after: what was done to a machine can be counted in its log.
        let (program, command, began) = (self.name, self.command_line(), tokio::time::Instant::now());
        tracing::info!(program, "begins: {command}");
        let ended = self.run_to_end().await;
        let seconds = began.elapsed().as_secs();
        match &ended {
            Ok(_) => tracing::info!(program, seconds, "ended: {command}"),
            Err(error) => tracing::warn!(program, seconds, "failed: {}", super::failure::chain(error)),
        }
        ended
    }

    async fn run_to_end(self) -> Result<Finished, ProgramError> {
        let command = self.command_line();
        let system = |source| ProgramError::System { command: command.clone(), source };
        let mut child = self.start().map_err(|source| match source.kind() {
            ErrorKind::NotFound => ProgramError::Missing { program: self.name },
            _ => system(source),
        })?;
        let mut group = Group::of(&child);
        let heard = Heard::of(&self);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = {
            let mut listening = pin!(async {
                tokio::join!(listen(out, |bytes| heard.stdout(bytes)), listen(err, |bytes| heard.stderr(bytes)));
            });
            let mut open = true;
            let ended = timeout(self.limit, async {
                let mut waiting = pin!(child.wait());
                loop {
                    tokio::select! {
                        biased;
                        status = &mut waiting => break status,
                        () = &mut listening, if open => open = false,
                    }
                }
            })
            .await;
            if open && ended.is_ok() {
                // What stands in the pipes is still read; whoever else holds them open is not waited for.
                let _ = timeout(Duration::from_secs(STREAMS_SECONDS_MAX), &mut listening).await;
            }
            ended
        };
        let Ok(status) = ended else {
            group.signal(Signal::TERM);
            let ended = timeout(Duration::from_secs(END_SECONDS_MAX), child.wait()).await.is_ok();
            // Whoever of its group is left ignores SIGTERM, and would work on beside the next attempt. The number is still the
            // group's while one of them lives, and nobody's if none does.
            group.signal(Signal::KILL);
            if ended {
                group.ended();
            }
            return Err(ProgramError::TimedOut {
                command,
                limit_seconds: self.limit.as_secs(),
                last_lines: heard.last_lines(),
            });
        };
        group.ended();
        heard.finish(command.clone(), status.map_err(system)?)
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new(self.name)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", path())
            .env("HOME", "/root")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .envs(&self.environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// The process group of a child that may still run: killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may have ended by itself: then there is nothing to signal.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The child was waited for: its number may belong to somebody else now.
    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What a program said so far.
struct Heard {
    name: &'static str,
    told: bool,
    /// Guards both streams' bytes and lines, which two readers write.
    words: Mutex<Words>,
}

#[derive(Default)]
struct Words {
    stdout: Vec<u8>,
    last: VecDeque<String>,
    /// The unfinished line of either stream.
    begun: [Vec<u8>; 2],
}

impl Heard {
    fn of(program: &Program) -> Self {
        Self { name: program.name, told: program.told, words: Mutex::default() }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // Bytes and lines are only ever added: a panic of another holder cannot leave them half-written.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stdout(&self, bytes: &[u8]) {
        let mut words = self.words();
        if !self.told {
            // One byte above the limit shows that it was passed.
            let room = (ANSWER_BYTES_MAX + 1).saturating_sub(words.stdout.len());
            words.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        self.lines(&mut words, 0, bytes);
    }

    fn stderr(&self, bytes: &[u8]) {
        self.lines(&mut self.words(), 1, bytes);
    }

    fn lines(&self, words: &mut Words, stream: usize, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.line(words, stream),
                _ if words.begun[stream].len() < LINE_BYTES_MAX => words.begun[stream].push(*byte),
                _ => {}
            }
        }
    }

    fn line(&self, words: &mut Words, stream: usize) {
        let line = std::mem::take(&mut words.begun[stream]);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        if self.told {
            tracing::info!(program = self.name, "{line}");
        }
        if words.last.len() == LAST_LINES_MAX {
            words.last.pop_front();
        }
        words.last.push_back(line);
    }

    fn last_lines(&self) -> String {
        let mut words = self.words();
        self.line(&mut words, 0);
        self.line(&mut words, 1);
        let lines: Vec<_> = words.last.iter().map(String::as_str).collect();
        if lines.is_empty() { "(none)".to_owned() } else { lines.join(" | ") }
    }

    fn finish(&self, command: String, status: ExitStatus) -> Result<Finished, ProgramError> {
        let last_lines = self.last_lines();
        let stdout = std::mem::take(&mut self.words().stdout);
        if stdout.len() > ANSWER_BYTES_MAX {
            return Err(ProgramError::TooMuchOutput { command, bytes_max: ANSWER_BYTES_MAX });
        }
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        if status.success() {
            return Ok(Finished { stdout, last_lines });
        }
        Err(ProgramError::Failed { command, status: status.to_string(), code: status.code(), last_lines, stdout })
    }
}

async fn listen(stream: Option<impl AsyncRead + Unpin>, mut hear: impl FnMut(&[u8])) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 16 * 1024];
    // A pipe that cannot be read any more is one that ended: the exit status says the rest.
    while let Ok(bytes @ 1..) = stream.read(&mut chunk).await {
        hear(&chunk[..bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;

    fn shell(script: &str) -> Program {
        Program::asking("sh", ["-c", script])
    }

    #[tokio::test]
    async fn the_answer_of_a_program_is_given_whole() {
        let finished = shell("echo one; echo two >&2; printf three").run().await.expect("it ends well");
        assert_eq!(finished.stdout, "one\nthree");
        assert!(finished.last_lines.contains("two"), "{}", finished.last_lines);
    }

    #[tokio::test]
    async fn a_program_sees_a_closed_environment_and_no_input() {
        let finished = shell("env; cat").run().await.expect("it ends well");
        let names: Vec<_> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        for name in names {
            assert!(
                ["PATH", "HOME", "LC_ALL", "TZ", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name),
                "{name} leaked in"
            );
        }
    }

    #[tokio::test]
    async fn an_error_names_command_status_and_last_lines() {
        let error = shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo line $i; done; exit 3").run().await;
        let text = error.expect_err("it fails").to_string();
        assert!(text.contains("sh -c for i") && text.contains("exit status: 3") && text.contains("line 14"), "{text}");
        assert!(!text.contains("line 2 "), "only the last lines stand there: {text}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = Program::asking("no-such-program", ["x"]).run().await.expect_err("there is none");
        assert!(matches!(error, ProgramError::Missing { program: "no-such-program" }), "{error}");
    }

    #[tokio::test]
    async fn a_program_beyond_its_time_is_ended_with_its_children() {
        let limit = Duration::from_millis(200);
        let error = Program::doing("sh", limit, ["-c", "echo begun; sleep 1000 & wait"]).run().await;
        let ProgramError::TimedOut { last_lines, .. } = error.expect_err("it takes too long") else {
            panic!("another error");
        };
        assert_eq!(last_lines, "begun");
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_end_of_its_parent_is_killed_when_the_time_is_over() {
        let folder = TestFolder::new("late-child");
        let fifo = folder.path("alive");
        let status = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
        assert!(status.success());
        // The grandchild holds the fifo open for writing: its reader sees the end when the grandchild is gone.
        let script = format!("(trap '' TERM; exec sleep 1000) >{} & wait", fifo.display());
        let run = Program::doing("sh", Duration::from_secs(1), ["-c".to_owned(), script]).run();
        let (error, reader) = tokio::join!(run, tokio::fs::File::open(&fifo));
        assert!(matches!(error, Err(ProgramError::TimedOut { .. })), "{error:?}");
        let (mut reader, mut rest) = (reader.expect("the grandchild opened it"), Vec::new());
        timeout(Duration::from_secs(10), reader.read_to_end(&mut rest)).await.expect("it is gone").expect("read");
    }

    #[tokio::test]
    async fn a_dropped_run_kills_the_whole_group() {
        let folder = TestFolder::new("dropped-run");
        let fifo = folder.path("alive");
        let status = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
        assert!(status.success());
        // The grandchild holds the fifo open for writing: its reader sees the end when the grandchild is gone.
        let script = format!("(exec sleep 1000) >{} & wait", fifo.display());
        let run = tokio::spawn(Program::asking("sh", ["-c".to_owned(), script]).run());
        let mut reader = tokio::fs::File::open(&fifo).await.expect("the grandchild opened it");
        run.abort();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), reader.read_to_end(&mut rest)).await.expect("it is gone").expect("read");
    }

    #[tokio::test]
    async fn a_daemon_that_holds_the_streams_is_not_waited_for() {
        let finished = shell("setsid sleep 1000 & echo $!").run().await.expect("it ends well");
        let daemon = finished.stdout.trim().parse().ok().and_then(Pid::from_raw).expect("its number");
        rustix::process::kill_process(daemon, Signal::KILL).expect("it still runs");
    }
}

//! A folder of one test, gone with it; and programs that stand for the machine's.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

thread_local! {
    /// Where programs of this thread's test are looked for, instead of on the machine.
    static PROGRAMS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The PATH that the test of this thread set.
pub(crate) fn programs() -> Option<String> {
    PROGRAMS.with_borrow(Clone::clone)
}

pub(crate) struct TestFolder(PathBuf);

impl TestFolder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cupcake-real-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("files lie in the folder")).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }

    /// Lets these programs be the only ones there are, on this thread, as long as the folder lives. Each writes down how it was
    /// called and then does what its shell script says. The scripts are read by a program that is never written: a file that
    /// is being written while another thread starts a program cannot be executed ("text file busy").
    pub(crate) fn be_the_machine(&self, programs: &[(&str, &str)]) {
        for (name, script) in programs {
            self.write(&format!("does/{name}"), script);
            let bin = self.path("bin");
            std::fs::create_dir_all(&bin).expect("a folder can be made");
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/src/real/fixtures/program.sh");
            let _ = std::fs::remove_file(bin.join(name));
            std::os::unix::fs::symlink(program, bin.join(name)).expect("a link can be made");
        }
        PROGRAMS.set(Some(self.path("bin").display().to_string()));
    }

    /// How the programs were called since the last time this was asked, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("calls"));
        calls.lines().map(ToOwned::to_owned).collect()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).expect("the file is there")
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        PROGRAMS.set(None);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

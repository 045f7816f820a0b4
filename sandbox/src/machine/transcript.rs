//! The transcript of a simulated run: every API request and every effect, in order, as one digest.

use cupcake_engine::clock::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines that are kept for reading, if any are; the digest covers all lines ever written.
const LINES_MAX: usize = 1_000_000;

/// A growing transcript; clones share it.
///
/// # Guarantees
/// Two runs have the same digest exactly if they wrote the same lines at the same virtual times in the same order.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// Guards the digest and the lines that are kept.
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    digest: Sha256,
    kept: Option<Vec<String>>,
}

impl Transcript {
    /// A transcript that also keeps its lines, for finding where two runs part.
    pub fn keeping_lines() -> Self {
        let inner = Inner { digest: Sha256::new(), kept: Some(Vec::new()) };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line of words at a virtual time; `body` is part of the digest, its hash part of a kept line.
    pub fn write(&self, at: Timestamp, words: &[&str], body: &[u8]) {
        let mut inner = self.lock();
        inner.digest.update(at.timestamp_micros().to_le_bytes());
        for word in words {
            inner.digest.update(word.as_bytes());
            inner.digest.update([0]);
        }
        inner.digest.update(body);
        inner.digest.update([b'\n']);
        if let Some(kept) = &mut inner.kept
            && kept.len() < LINES_MAX
        {
            let mut line = format!("{} {}", at.format("%H:%M:%S%.3f"), words.join(" "));
            if !body.is_empty() {
                let _ = write!(line, " {}", String::from_utf8_lossy(body));
            }
            kept.push(line);
        }
    }

    /// The digest so far, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&self.lock().digest.clone().finalize())
    }

    /// The lines so far; none unless they are kept.
    pub fn lines(&self) -> Vec<String> {
        self.lock().kept.clone().unwrap_or_default()
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! The pip of the host, if it has one: installed beside the interpreter, or bundled with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use codegen_types::{ErrorCode, Failure};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::runtimes::find;

/// Asks an interpreter for its own pip, without running it, and for the wheel that it would make one of.
const QUESTION: &str = r#"
import glob, importlib.util, json, os, sysconfig
found = importlib.util.find_spec("pip")
places = [sysconfig.get_config_var("WHEEL_PKG_DIR") or ""]
bundle = importlib.util.find_spec("ensurepip")
if bundle is not None and bundle.origin:
    places.insert(0, os.path.join(os.path.dirname(bundle.origin), "_bundled"))
wheels = [wheel for place in places if place for wheel in sorted(glob.glob(os.path.join(place, "pip-*.whl")))]
print(json.dumps({"installed": found is not None and found.origin is not None, "wheel": wheels[0] if wheels else None}))
"#;

/// Where pip is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pip {
    /// Where the interpreter finds it.
    Installed,
    /// In a wheel of the host that sandboxes show.
    Bundled(String),
    /// Nowhere.
    Missing,
}

/// Looks for pip when it is first needed.
#[derive(Debug)]
pub(super) struct PipFinder {
    python: PathBuf,
    search_path: OsString,
    found: OnceCell<Pip>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    installed: bool,
    wheel: Option<PathBuf>,
}

impl PipFinder {
    /// A finder for an interpreter of the host.
    pub fn new(python: &Path, search_path: OsString) -> Self {
        Self { python: python.to_owned(), search_path, found: OnceCell::new() }
    }

    /// The interpreter and its pip.
    pub async fn find(&self) -> Result<(PathBuf, Pip), Failure> {
        let pip = self.found.get_or_try_init(|| self.ask()).await?;
        Ok((self.python.clone(), pip.clone()))
    }

    async fn ask(&self) -> Result<Pip, Failure> {
        let answer = find::ask(&self.python, &["-I", "-c", QUESTION], &self.search_path).await;
        let answer = answer.map_err(|error| error.to_string());
        let answer = answer.and_then(|text| serde_json::from_str::<Answer>(&text).map_err(|error| error.to_string()));
        match answer {
            Ok(Answer { installed: true, .. }) => Ok(Pip::Installed),
            Ok(Answer { wheel: Some(wheel), .. }) => Ok(Pip::Bundled(wheel.to_string_lossy().into_owned())),
            Ok(Answer { wheel: None, .. }) => Ok(Pip::Missing),
            Err(why) => {
                tracing::warn!(why, python = %self.python.display(), "the interpreter does not say where its pip is");
                let text = "The worker's Python does not say whether it has pip; nothing was run.";
                Err(Failure::new(ErrorCode::Internal, text))
            }
        }
    }
}

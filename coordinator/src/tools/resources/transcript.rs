//! The live transcript of a session: who runs and ran what there, and the end of what it wrote.

use std::fmt::Write;
use std::time::Instant;

use codegen_types::{Failure, SessionId};

use super::{Asked, ResourceBody, ResourceContents, ResourceUri};
use crate::session::{Captured, TaskInfo};
use crate::tools::connection::Connection;
use crate::tools::serve::Record;
use crate::tools::tasks::TaskView;
use crate::tools::{Effect, find};

/// The latest tasks of a transcript.
const TASKS_MAX: usize = 20;
/// Tasks that are looked through for them; calls that only read are not shown.
const LOOKED_AT_MAX: u32 = 100;
/// Bytes of each task's output, the last ones.
const OUTPUT_BYTES_MAX: usize = 2 << 10;

impl Connection {
    /// What runs in a session and ran there last, the newest at the end.
    pub(super) async fn transcript(
        &self,
        session: SessionId,
        uri: &str,
        asked: &Asked,
    ) -> Result<ResourceContents, Failure> {
        let (begun, address) = (Instant::now(), ResourceUri::Transcript(session));
        let request = asked.request(Some(&address), uri);
        let read = async {
            self.counted(asked)?;
            self.may_look_at(&address)?;
            self.tasks_shown(session).await
        };
        match read.await {
            Ok(text) => {
                self.record(None, &request, Record::served(Some(session)), begun).await?;
                Ok(ResourceContents { uri: address, media: "text/plain", body: ResourceBody::Text(text) })
            }
            Err(failure) => Err(self.refused(&request, failure, begun).await),
        }
    }

    async fn tasks_shown(&self, session: SessionId) -> Result<String, Failure> {
        let mut infos = self.sessions.tasks(self.principal.clone(), Some(session), LOOKED_AT_MAX).await?;
        infos.retain(|info| find(&info.tool).is_some_and(|tool| tool.effect != Effect::Reads));
        infos.truncate(TASKS_MAX);
        let mut text = String::new();
        for info in infos.iter().rev() {
            // Its outcome may just have been given up.
            let Ok(seen) = self.sessions.task(self.principal.clone(), info.task).await else { continue };
            show(&mut text, &seen.info, &seen.log);
        }
        if text.is_empty() {
            text.push_str("nothing has run in this session of late\n");
        }
        Ok(text)
    }
}

fn show(text: &mut String, info: &TaskInfo, log: &Captured) {
    let _ = writeln!(text, "{}, by {}", TaskView::of(info).line(), info.principal);
    let kept: Vec<u8> = [log.head.as_slice(), log.tail.as_slice()].concat();
    let shown = &kept[kept.len().saturating_sub(OUTPUT_BYTES_MAX)..];
    let left_out = log.written() - shown.len() as u64;
    if left_out > 0 {
        let _ = writeln!(text, "| [{left_out} bytes before; task_logs has them]");
    }
    for line in String::from_utf8_lossy(shown).lines() {
        let _ = writeln!(text, "| {line}");
    }
}

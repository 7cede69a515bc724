//! The transport: lines in, messages to rmcp; messages from rmcp, lines out.
//!
//! rmcp's own drops what is no JSON without an answer, knows no batches, and may leave half a line behind; hence this. It
//! also passes no notice on once its transport has ended, and lets whoever sends one wait; so this one ends only when
//! every request was answered.

use std::collections::VecDeque;
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorData, GetMeta, JsonRpcMessage, ProtocolVersion, RequestId,
};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LINE_BYTES_MAX;
use super::line::{Line, LineReader};
use super::order;
use super::unanswered::Unanswered;
use super::writer::{Lines, OutputClosed};
use crate::arrivals::Arrivals;

/// The most messages in one batch.
pub(super) const BATCH_MAX: usize = 100;

/// One connection's transport.
pub(super) struct Stdio<R> {
    input: LineReader<R>,
    output: Lines,
    /// Messages of a batch that were read and not yet handed on.
    messages: VecDeque<ClientJsonRpcMessage>,
    /// Answers to what was no message, not yet sent.
    refusals: VecDeque<Vec<u8>>,
    /// Whether the client has chosen its era. Until then rmcp takes only requests and ends the connection otherwise.
    begun: bool,
    /// Cancelled when the client has closed its side.
    input_over: CancellationToken,
    unanswered: Unanswered,
    arrivals: Arrivals,
    /// How long requests may be answered that are open when the client closes its side.
    last_answers: Duration,
    /// When that is over, once it has.
    ends_at: Option<Instant>,
}

impl<R: AsyncRead + Send + Unpin> Stdio<R> {
    pub(super) fn new(input: R, output: Lines, input_over: CancellationToken, last_answers: Duration) -> Self {
        Self {
            input: LineReader::new(input, LINE_BYTES_MAX),
            output,
            messages: VecDeque::new(),
            refusals: VecDeque::new(),
            begun: false,
            input_over,
            unanswered: Unanswered::default(),
            arrivals: Arrivals::default(),
            last_answers,
            ends_at: None,
        }
    }

    async fn receive_or_end(&mut self) -> Result<Option<ClientJsonRpcMessage>, OutputClosed> {
        loop {
            while let Some(refusal) = self.refusals.front() {
                self.output.put(refusal).await?;
                self.refusals.pop_front();
            }
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            if let Some(at) = self.ends_at {
                self.answers_are_out(at).await?;
                return Ok(None);
            }
            self.output.ready().await?;
            let line = tokio::select! {
                line = self.input.next() => line,
                () = self.output.closed() => return Err(OutputClosed),
            };
            match line {
                Ok(Line::Whole(line)) => self.accept_line(&line),
                Ok(Line::TooLong) => {
                    let fault = format!("the line is longer than {LINE_BYTES_MAX} bytes and was skipped");
                    self.refuse(None, ErrorData::invalid_request(fault, None));
                }
                Ok(Line::End) => self.end_input(),
                Err(error) => {
                    tracing::info!(%error, "the client's input cannot be read any more");
                    self.end_input();
                }
            }
        }
    }

    fn end_input(&mut self) {
        self.input_over.cancel();
        self.ends_at = Some(Instant::now() + self.last_answers);
    }

    /// Waits until no request is open any more, but no longer than until `at`.
    async fn answers_are_out(&mut self, at: Instant) -> Result<(), OutputClosed> {
        tokio::select! {
            () = self.unanswered.none() => Ok(()),
            () = tokio::time::sleep_until(at) => Ok(()),
            () = self.output.closed() => Err(OutputClosed),
        }
    }

    fn accept_line(&mut self, line: &[u8]) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
        if line.is_empty() {
            return;
        }
        if line[0] != b'[' {
            return self.accept(line);
        }
        match serde_json::from_slice::<Vec<Box<RawValue>>>(line) {
            Ok(batch) if batch.is_empty() => {
                self.refuse(None, ErrorData::invalid_request("an empty batch", None));
            }
            Ok(batch) if batch.len() > BATCH_MAX => {
                self.refuse(None, ErrorData::invalid_request(format!("a batch of more than {BATCH_MAX}"), None));
            }
            Ok(batch) => batch.iter().for_each(|message| self.accept(message.get().as_bytes())),
            Err(error) => self.refuse(None, ErrorData::parse_error(format!("not JSON: {error}"), None)),
        }
    }

    fn accept(&mut self, text: &[u8]) {
        match serde_json::from_slice::<ClientJsonRpcMessage>(text) {
            Ok(message) if self.begun || self.begins(&message) => self.messages.push_back(message),
            Ok(_) => tracing::debug!("a message before the connection began is ignored"),
            Err(error) => self.refuse_text(text, &error),
        }
    }

    /// Whether a message may be handed on although no era is chosen yet, and whether it chooses one.
    fn begins(&mut self, message: &ClientJsonRpcMessage) -> bool {
        let JsonRpcMessage::Request(request) = message else { return false };
        self.begun = match &request.request {
            ClientRequest::InitializeRequest(_) => true,
            ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
            other => {
                let meta = other.get_meta();
                let version = meta.protocol_version();
                let complete = meta.missing_required_keys(&ProtocolVersion::V_2026_07_28).is_empty();
                complete && version.is_some_and(|version| ProtocolVersion::KNOWN_VERSIONS.contains(&version))
            }
        };
        true
    }

    /// Answers what is no message, as far as it can be said to whom.
    fn refuse_text(&mut self, text: &[u8], error: &serde_json::Error) {
        let Ok(value) = serde_json::from_slice::<Value>(text) else {
            return self.refuse(None, ErrorData::parse_error(format!("not JSON: {error}"), None));
        };
        let is_notification = value.get("method").is_some_and(Value::is_string) && value.get("id").is_none();
        if is_notification {
            tracing::debug!(%error, "a notification that cannot be read is ignored");
            return;
        }
        let id = value.get("id").and_then(|id| RequestId::deserialize(id).ok());
        self.refuse(id, ErrorData::invalid_request(format!("not a JSON-RPC 2.0 message: {error}"), None));
    }

    /// Queues an error. Without an id it says `"id": null`, as JSON-RPC asks, where rmcp would leave the field out.
    fn refuse(&mut self, id: Option<RequestId>, error: ErrorData) {
        tracing::debug!(code = error.code.0, message = %error.message, "a line is refused");
        let refusal = json!({"jsonrpc": "2.0", "id": id, "error": error});
        self.refusals.push_back(refusal.to_string().into_bytes());
    }
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for Stdio<R> {
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let sent = serde_json::to_vec(&item).map(|line| self.output.send(line));
        let (unanswered, answered) = (self.unanswered.clone(), Unanswered::answered(&item));
        async move {
            let sent = match sent {
                Ok(sending) => sending.await.map_err(|closed| std::io::Error::new(ErrorKind::BrokenPipe, closed)),
                Err(error) => Err(error.into()),
            };
            if let Some(id) = answered {
                unanswered.settle(&id);
            }
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let received = self.receive_or_end().await;
        match received {
            Ok(Some(mut message)) => {
                self.unanswered.asked(&message);
                order::mark(&mut self.arrivals, &mut message);
                Some(message)
            }
            Ok(None) | Err(OutputClosed) => {
                self.input_over.cancel();
                None
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

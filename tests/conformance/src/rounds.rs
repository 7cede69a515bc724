//! Tools and a prompt that ask the client for more and are called again with it (2026-07-28).

use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ErrorData, InputRequest, InputRequests,
    InputRequiredResult, InputResponses, RequestStateCodec, SealOptions,
};
use serde_json::{Value, json};

/// The prompt that asks.
pub(crate) const PROMPT: &str = "test_input_required_result_prompt";

/// The tools that ask.
pub(crate) const TOOLS: [&str; 9] = [
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "test_streaming_elicitation",
];

/// One call of such a tool.
pub(crate) struct Round<'a> {
    pub(crate) tool: &'a str,
    pub(crate) responses: Option<&'a InputResponses>,
    pub(crate) state: Option<&'a str>,
    pub(crate) capabilities: ClientCapabilities,
    /// What seals what the client is to give back.
    pub(crate) codec: &'a RequestStateCodec,
}

impl Round<'_> {
    /// The answer of the tool.
    pub(crate) fn answer(&self) -> Result<CallToolResponse, ErrorData> {
        match self.tool {
            "test_input_required_result_sampling" => Ok(self.one("capital_question", capital(), sampled)),
            "test_input_required_result_list_roots" => Ok(self.one("client_roots", roots(), listed)),
            "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
                self.confirmed()
            }
            "test_input_required_result_multiple_inputs" => self.all_three(),
            "test_input_required_result_multi_round" => self.step_by_step(),
            "test_input_required_result_capabilities" => Ok(self.what_the_client_can()),
            _ => Ok(self.one("user_name", name(), |response| text_of(response, "name"))),
        }
    }

    /// Asks one thing until it is answered.
    fn one(&self, key: &str, request: InputRequest, read: impl Fn(&Value) -> Option<String>) -> CallToolResponse {
        match self.given(key).and_then(read) {
            Some(answer) => said(&format!("Hello, {answer}!")),
            None => InputRequiredResult::from_input_requests(requests([(key, request)])).into(),
        }
    }

    fn confirmed(&self) -> Result<CallToolResponse, ErrorData> {
        let round = self.round()?;
        let is_confirmed = self.given("confirm").is_some_and(|response| accepted(response, "ok").is_some());
        if round == 1 && is_confirmed {
            return Ok(said("state-ok"));
        }
        Ok(self.asks([("confirm", ask("Please confirm", "ok", "boolean"))], 1))
    }

    fn all_three(&self) -> Result<CallToolResponse, ErrorData> {
        let round = self.round()?;
        let name_given = self.given("user_name").and_then(|response| text_of(response, "name"));
        let greeting = self.given("greeting").and_then(sampled);
        let root = self.given("client_roots").and_then(listed);
        if let (1, Some(name), Some(greeting), Some(root)) = (round, name_given, greeting, root) {
            return Ok(said(&format!("{greeting}, {name}, at {root}")));
        }
        let greeting = sample("Generate a greeting", 50);
        Ok(self.asks([("user_name", name()), ("greeting", greeting), ("client_roots", roots())], 1))
    }

    fn step_by_step(&self) -> Result<CallToolResponse, ErrorData> {
        let first = self.given("step1").and_then(|response| text_of(response, "name"));
        let second = self.given("step2").and_then(|response| text_of(response, "color"));
        Ok(match (self.round()?, first, second) {
            (2, _, Some(color)) => said(&format!("The color is {color}.")),
            (1, Some(_), _) | (2, _, None) => {
                self.asks([("step2", ask("Step 2: What is your favorite color?", "color", "string"))], 2)
            }
            _ => self.asks([("step1", ask("Step 1: What is your name?", "name", "string"))], 1),
        })
    }

    fn what_the_client_can(&self) -> CallToolResponse {
        let can = &self.capabilities;
        let mut possible = InputRequests::new();
        if can.elicitation.is_some() {
            possible.insert("user_name".to_owned(), name());
        }
        if serde_json::to_value(can).is_ok_and(|can| can.get("sampling").is_some()) {
            possible.insert("greeting".to_owned(), sample("Generate a greeting", 50));
        }
        if possible.is_empty() || self.responses.is_some() {
            return said("Done.");
        }
        InputRequiredResult::from_input_requests(possible).into()
    }

    fn given(&self, key: &str) -> Option<&Value> {
        self.responses.and_then(|responses| responses.get(key))
    }

    /// Asks, and has the client give back which round this was.
    fn asks<const N: usize>(&self, asked: [(&str, InputRequest); N], round: u64) -> CallToolResponse {
        let options = SealOptions::new().associated_data(self.tool.as_bytes());
        let state = self.codec.seal_with(&round.to_be_bytes(), &options);
        InputRequiredResult::new(Some(requests(asked)), Some(state)).into()
    }

    /// The last round, as the client gives it back; zero at first.
    fn round(&self) -> Result<u64, ErrorData> {
        let Some(state) = self.state else { return Ok(0) };
        let refused = || ErrorData::invalid_params("the request's state is not one of this server's", None);
        let opened = self.codec.open_with(state, self.tool.as_bytes()).map_err(|_| refused())?;
        opened.try_into().map(u64::from_be_bytes).map_err(|_| refused())
    }
}

/// What the client says to the prompt, or what it is asked.
pub(crate) fn answer_to_prompt(responses: Option<&InputResponses>) -> Result<String, Box<InputRequiredResult>> {
    let given = responses.and_then(|responses| responses.get("user_context"));
    given.and_then(|response| text_of(response, "context")).ok_or_else(|| {
        let question = ask("What context should the prompt use?", "context", "string");
        Box::new(InputRequiredResult::from_input_requests(requests([("user_context", question)])))
    })
}

fn said(text: &str) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

fn requests<const N: usize>(asked: [(&str, InputRequest); N]) -> InputRequests {
    asked.into_iter().map(|(key, request)| (key.to_owned(), request)).collect()
}

fn name() -> InputRequest {
    ask("What is your name?", "name", "string")
}

fn capital() -> InputRequest {
    sample("What is the capital of France?", 100)
}

fn ask(message: &str, field: &str, of_type: &str) -> InputRequest {
    let schema = json!({"type": "object", "properties": {field: {"type": of_type}}, "required": [field]});
    request("elicitation/create", json!({"mode": "form", "message": message, "requestedSchema": schema}))
}

fn sample(question: &str, tokens_max: u32) -> InputRequest {
    let message = json!({"role": "user", "content": {"type": "text", "text": question}});
    request("sampling/createMessage", json!({"messages": [message], "maxTokens": tokens_max}))
}

fn roots() -> InputRequest {
    request("roots/list", json!({}))
}

fn request(method: &str, params: Value) -> InputRequest {
    serde_json::from_value(json!({"method": method, "params": params})).expect("a request of the protocol")
}

/// A field of what a user accepted to say.
fn accepted<'a>(response: &'a Value, field: &str) -> Option<&'a Value> {
    (response.get("action")? == "accept").then(|| response.get("content")?.get(field)).flatten()
}

fn text_of(response: &Value, field: &str) -> Option<String> {
    accepted(response, field)?.as_str().map(str::to_owned)
}

fn sampled(response: &Value) -> Option<String> {
    response.get("content")?.get("text")?.as_str().map(str::to_owned)
}

fn listed(response: &Value) -> Option<String> {
    response.get("roots")?.as_array()?.first()?.get("uri")?.as_str().map(str::to_owned)
}

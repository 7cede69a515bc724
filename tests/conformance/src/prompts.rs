//! The prompts.

use rmcp::model::{
    ContentBlock, ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Prompt, PromptArgument,
    PromptMessage, Role,
};

use crate::content::{embedded, image};
use crate::rounds;

pub(crate) fn list() -> Vec<Prompt> {
    let argument = |name: &str| PromptArgument::new(name).with_description("Stands in the prompt").with_required(true);
    vec![
        Prompt::new("test_simple_prompt", Some("A prompt"), None),
        Prompt::new(
            "test_prompt_with_arguments",
            Some("A prompt with arguments"),
            Some(vec![argument("arg1"), argument("arg2")]),
        ),
        Prompt::new(
            "test_prompt_with_embedded_resource",
            Some("A prompt with a resource"),
            Some(vec![argument("resourceUri")]),
        ),
        Prompt::new("test_prompt_with_image", Some("A prompt with a picture"), None),
        Prompt::new(rounds::PROMPT, Some("A prompt that asks the user first"), None),
    ]
}

pub(crate) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let given = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        given.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let text = |text: String| PromptMessage::new(Role::User, ContentBlock::text(text));
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.".to_owned())],
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1"), argument("arg2"));
            vec![text(format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = embedded(&argument("resourceUri"), "text/plain", "Embedded resource content for testing.");
            vec![
                PromptMessage::new(Role::User, resource),
                text("Please process the embedded resource above.".to_owned()),
            ]
        }
        "test_prompt_with_image" => {
            vec![PromptMessage::new(Role::User, image()), text("Please analyze the image above.".to_owned())]
        }
        rounds::PROMPT => match rounds::answer_to_prompt(request.input_responses.as_ref()) {
            Ok(context) => vec![text(format!("The context is {context}."))],
            Err(asks) => return Ok((*asks).into()),
        },
        _ => return Err(ErrorData::invalid_params("there is no such prompt", None)),
    };
    Ok(GetPromptResult::new(messages).into())
}

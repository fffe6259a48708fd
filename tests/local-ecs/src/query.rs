//! The Query protocol, which STS speaks: a form comes in, XML goes out.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::model::failure::Failure;

/// What STS's answers name as their schema.
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Reads a form as an object of strings, keys as they came.
pub(crate) fn read(body: &[u8]) -> Value {
    let pairs = form_urlencoded::parse(body);
    Value::Object(pairs.map(|(key, value)| (key.into_owned(), json!(value))).collect::<Map<_, _>>())
}

/// An answer to an operation.
pub(crate) fn answer(operation: &str, request_id: &str, result: &Value) -> String {
    let mut xml = format!("<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>");
    write_members(&mut xml, result);
    let _ = write!(xml, "</{operation}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>");
    xml + &format!("</{operation}Response>")
}

/// An error and its HTTP status. The Query protocol drops `Exception` from the names that the JSON protocol uses, and
/// calls a token that nobody knows by a name of its own (`CommonErrors` of the STS API reference).
pub(crate) fn error(failure: &Failure, request_id: &str) -> (u16, String) {
    let code = match failure.kind.as_str() {
        "UnrecognizedClientException" => "InvalidClientTokenId",
        kind => kind.strip_suffix("Exception").unwrap_or(kind),
    };
    let status = match code {
        "AccessDenied" | "ExpiredToken" | "InvalidClientTokenId" | "MissingAuthenticationToken" => 403,
        _ => failure.status(),
    };
    let blame = if status < 500 { "Sender" } else { "Receiver" };
    let mut xml = format!("<ErrorResponse xmlns=\"{NAMESPACE}\"><Error>");
    write_members(&mut xml, &json!({"Type": blame, "Code": code, "Message": failure.message}));
    let _ = write!(xml, "</Error><RequestId>{request_id}</RequestId></ErrorResponse>");
    (status, xml)
}

/// Writes an object as elements, each with its value.
fn write_members(xml: &mut String, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let _ = write!(xml, "<{key}>");
        match value {
            Value::Object(_) => write_members(xml, value),
            Value::String(text) => {
                xml.push_str(&text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
            }
            other => {
                let _ = write!(xml, "{other}");
            }
        }
        let _ = write!(xml, "</{key}>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_answers_are_those_of_the_wire() {
        let form = read(b"Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa&RoleSessionName=a+b");
        assert_eq!(form, json!({"Action": "AssumeRole", "RoleArn": "arn:aws:iam::1:role/a", "RoleSessionName": "a b"}));
        assert_eq!(
            answer("Do", "id", &json!({"A": {"B": "<&>"}, "C": 1})),
            "<DoResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><DoResult><A><B>&lt;&amp;&gt;</B></A><C>1</C>\
             </DoResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoResponse>"
        );
    }

    #[test]
    fn errors_have_the_names_of_their_protocol() {
        for (kind, status, code) in [
            ("AccessDeniedException", 403, "AccessDenied"),
            ("AccessDenied", 403, "AccessDenied"),
            ("UnrecognizedClientException", 403, "InvalidClientTokenId"),
            ("ThrottlingException", 400, "Throttling"),
            ("ServerException", 500, "Server"),
        ] {
            let (seen, xml) = error(&Failure::new(kind, "no"), "id");
            assert_eq!(seen, status, "{kind}");
            assert!(xml.contains(&format!("<Code>{code}</Code><Message>no</Message>")), "{xml}");
        }
    }
}

//! Shapes: for each message that a server receives, which of its fields make the decoded message
//! larger than its bytes, and by how much.

use std::collections::BTreeSet;
use std::error;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};

/// Rust source: a static for each message that a method takes, however deep, and the trait that
/// finds it. `carriers` are the messages that are in `raw`; the others are in `v1`.
pub(super) fn of(
    files: &FileDescriptorSet,
    package: &str,
    carriers: &BTreeSet<String>,
) -> Result<String, Box<dyn error::Error>> {
    let ours = || files.file.iter().filter(|file| file.package() == package);
    let inputs: BTreeSet<&str> = ours()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(MethodDescriptorProto::input_type)
        .collect();
    let find = |name: &str| {
        let short = name.rsplit_once('.').map_or(name, |(_, short)| short);
        let message = ours().flat_map(|file| &file.message_type).find(|m| m.name() == short);
        message.ok_or_else(|| format!("{name} is no message of {package}"))
    };
    let mut source = String::new();
    let mut known = BTreeSet::new();
    let mut open: Vec<&str> = inputs.iter().copied().collect();
    while let Some(name) = open.pop() {
        if !known.insert(name) {
            continue;
        }
        let message = find(name)?;
        let mut fields = String::new();
        for field in &message.field {
            if let Some(kind) = kind(field, carriers)? {
                write!(fields, "({}, {kind}), ", field.number())?;
                if field.r#type() == Type::Message {
                    open.push(field.type_name());
                }
            }
        }
        let upper = constant(message.name());
        writeln!(source, "static {upper}: Shape = Shape(&[{fields}]);")?;
    }
    // Who only asks decodes replies, which have none.
    for (message, name) in ours().flat_map(|file| &file.message_type).map(|message| {
        let name = format!(".{package}.{}", message.name());
        (message, name)
    }) {
        let rust = rust(message, &name, carriers);
        let shape = if inputs.contains(name.as_str()) {
            format!("Some(&{})", constant(message.name()))
        } else {
            "None".to_owned()
        };
        writeln!(
            source,
            "impl Shaped for {rust} {{ const SHAPE: Option<&'static Shape> = {shape}; }}"
        )?;
    }
    Ok(source)
}

fn rust(message: &DescriptorProto, name: &str, carriers: &BTreeSet<String>) -> String {
    let module = if carriers.contains(name) { "raw" } else { "v1" };
    format!("crate::{module}::{}", message.name())
}

/// How a field grows; none: not beyond its bytes.
fn kind(
    field: &FieldDescriptorProto,
    carriers: &BTreeSet<String>,
) -> Result<Option<String>, Box<dyn error::Error>> {
    let repeated = field.label() == Label::Repeated;
    Ok(match (field.r#type(), repeated) {
        (Type::Message, _) => {
            let name = field.type_name();
            let (_, short) = name.rsplit_once('.').ok_or("a message without a package")?;
            let module = if carriers.contains(name) { "raw" } else { "v1" };
            let shape = constant(short);
            Some(if repeated {
                format!("Field::Many(&{shape}, size_of::<crate::{module}::{short}>())")
            } else {
                format!("Field::One(&{shape})")
            })
        }
        (Type::String, false) => Some("Field::Text".to_owned()),
        (Type::String | Type::Bytes, true) => {
            // No request has one. Each element would be some fifty bytes more than it is on the wire.
            return Err("a list of bytes or text has no shape".into());
        }
        (Type::Group, _) => return Err("a group has no shape".into()),
        (_, true) => Some("Field::Numbers".to_owned()),
        (_, false) => None,
    })
}

/// `BeginRequest` becomes `BEGIN_REQUEST`.
fn constant(name: &str) -> String {
    let mut upper = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            upper.push('_');
        }
        upper.extend(letter.to_uppercase());
    }
    upper
}

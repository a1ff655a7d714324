//! Generates Rust from the `.proto` files, twice.
//!
//! `v1` is the contract as it stands. `raw` has the messages that carry an event, with the event
//! as bytes: a length-delimited message and a `bytes` field look the same on the wire, so whoever
//! only carries events from a socket to a journal need not take them apart. The event itself is in
//! `raw` with its map of attributes as the list of entries that it is on the wire, for whoever
//! takes thousands apart and looks up none. Messages without an event exist once, in `v1`.
//!
//! Beside them it writes the shapes of all messages that a server receives, by which they are
//! looked through before they are decoded (`src/bounded.rs`).

#[path = "build/shapes.rs"]
mod shapes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, error, fs};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = "handfast.v1";
const EVENT: &str = ".handfast.v1.Event";
const FILES: [&str; 6] = [
    "handfast/v1/common.proto",
    "handfast/v1/transactions.proto",
    "handfast/v1/participants.proto",
    "handfast/v1/events.proto",
    "handfast/v1/databases.proto",
    "handfast/v1/server.proto",
];

fn main() -> Result<(), Box<dyn error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/shapes.rs");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let honest = protox::compile(FILES, [&root])?;
    fs::write(out.join("descriptor.bin"), without_comments(honest.clone()).encode_to_vec())?;

    let carriers = carriers_of_events(&honest);
    let mut raw = honest.clone();
    for file in raw.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        for message in &mut file.message_type {
            events_as_bytes(message);
        }
        maps_as_lists(file);
    }

    fs::write(out.join("shapes.rs"), shapes::of(&raw, PACKAGE, &carriers)?)?;
    generate(honest.clone(), &out.join("v1"), true, &[])?;
    let elsewhere: Vec<String> =
        messages(&honest).map(|(name, _)| name).filter(|name| !carriers.contains(name)).collect();
    generate(raw, &out.join("raw"), false, &elsewhere)
}

/// `elsewhere`: messages that are not generated here because they are the same as in `v1`.
fn generate(
    files: FileDescriptorSet,
    out: &Path,
    public: bool,
    elsewhere: &[String],
) -> Result<(), Box<dyn error::Error>> {
    fs::create_dir_all(out)?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .btree_map(".")
        .build_server(!public)
        .build_transport(false)
        .generate_default_stubs(false)
        .codec_path(if public { "tonic_prost::ProstCodec" } else { "crate::bounded::Codec" })
        .emit_rerun_if_changed(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]");
    if !public {
        for file in &files.file {
            for item in &file.enum_type {
                let rust = format!("crate::v1::{}", item.name());
                builder = builder.extern_path(format!(".{PACKAGE}.{}", item.name()), rust);
            }
        }
        for name in elsewhere {
            let (_, short) = name.rsplit_once('.').ok_or("a message without a package")?;
            builder = builder.extern_path(name, format!("crate::v1::{short}"));
        }
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// Every message of the package, with its full name.
fn messages(files: &FileDescriptorSet) -> impl Iterator<Item = (String, &DescriptorProto)> {
    files.file.iter().filter(|file| file.package() == PACKAGE).flat_map(
        |file: &FileDescriptorProto| {
            file.message_type
                .iter()
                .map(|message| (format!(".{PACKAGE}.{}", message.name()), message))
        },
    )
}

/// The event, and messages with one in them, however deep.
fn carriers_of_events(files: &FileDescriptorSet) -> BTreeSet<String> {
    let mut carriers = BTreeSet::from([EVENT.to_owned()]);
    loop {
        let before = carriers.len();
        for (name, message) in messages(files) {
            let carries =
                |field: &prost_types::FieldDescriptorProto| carriers.contains(field.type_name());
            if message.field.iter().any(carries) {
                carriers.insert(name);
            }
        }
        if carriers.len() == before {
            return carriers;
        }
    }
}

/// An absent event becomes an empty one, which no checker lets pass, so nothing is lost by it.
fn events_as_bytes(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == EVENT {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}

/// An entry is written nowhere in the source, so it gets its comments here.
fn maps_as_lists(file: &mut FileDescriptorProto) {
    let mut comments = Vec::new();
    for (at, message) in (0..).zip(&mut file.message_type) {
        for (inside, nested) in (0..).zip(&mut message.nested_type) {
            let Some(options) = &mut nested.options else { continue };
            if options.map_entry.take() != Some(true) {
                continue;
            }
            // Numbers of the fields of descriptor.proto that lead there.
            let path = vec![4, at, 3, inside];
            let field = |number| [path.as_slice(), &[2, number]].concat();
            comments.push((field(0), " Its name."));
            comments.push((field(1), " Its value."));
            comments.push((path, " An entry of the map."));
        }
    }
    let locations = comments.into_iter().map(|(path, comment)| Location {
        path,
        leading_comments: Some(comment.to_owned()),
        ..Location::default()
    });
    if let Some(source) = &mut file.source_code_info {
        source.location.extend(locations);
    }
}

fn without_comments(mut files: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut files.file {
        file.source_code_info = None;
    }
    files
}

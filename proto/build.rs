//! Compiles the `.proto` files without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["codegen/v1/lifecycle.proto", "codegen/v1/worker.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let encoded = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(encoded, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").skip_debug([".codegen.v1.EgressSecret"]).compile_fds(descriptors)?;
    Ok(())
}

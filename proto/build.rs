//! Compiles the `.proto` files without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["codegen/v1/lifecycle.proto", "codegen/v1/worker.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

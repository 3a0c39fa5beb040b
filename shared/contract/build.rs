//! Turns the .proto into types without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/contract.proto");
    let files = protox::compile(["proto/contract.proto"], ["proto"])?;
    prost_build::Config::new()
        .btree_map(["."])
        // Keys are not printed (src/srtp.rs).
        .skip_debug([".weir.contract.v1.Srtp", ".weir.contract.v1.Ice", ".weir.contract.v1.Auth"])
        // Most legs have none.
        .boxed(".weir.contract.v1.RtpLeg.srtp")
        .boxed(".weir.contract.v1.RtpLeg.ice")
        .boxed(".weir.contract.v1.RtpLeg.dtls")
        .boxed(".weir.contract.v1.RtpLeg.continuity")
        .boxed(".weir.contract.v1.RtpLeg.extensions")
        .boxed(".weir.contract.v1.RtpLeg.rtcp")
        .boxed(".weir.contract.v1.RtpLeg.bundle")
        .boxed(".weir.contract.v1.RtpLeg.remote_rtcp")
        .compile_fds(files)?;
    Ok(())
}

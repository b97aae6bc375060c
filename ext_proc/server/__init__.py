"""The gRPC side: Envoy's protobuf in, mutations out."""

//! grpc-go's own interoperability cases, and streams and deadlines under load: through the gateway as directly.

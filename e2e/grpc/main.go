// Command grpc is grpc-go's interoperability suite, as a server, as its cases one by one, and as loads of streams and of
// calls with deadlines. What it prints of a load are numbers by name, for a test that runs it directly and through the
// gateway and compares.
//
// The cases are the package interop's own: its program `client` would run the same functions, and needs all of xDS.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
)

var (
	addr      = flag.String("addr", "", "host:port to listen on, or to call")
	authority = flag.String("authority", "", "the host that is called")
	ca        = flag.String("ca", "", "a file with the certificate to trust: TLS")
	messages  = flag.Int("messages", 5000, "messages of each stream")
	rate      = flag.Int("rate", 200, "calls in a second")
	during    = flag.Duration("during", 2*time.Second, "how long calls are made")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	switch what := flag.Arg(0); what {
	case "serve":
		serve()
	case "streams":
		streams(ctx, dial())
	case "deadlines":
		deadlines(ctx, dial())
	default:
		run, known := cases[what]
		if !known {
			log.Fatalf("%q is no case", what)
		}
		run(ctx, dial())
	}
}

func serve() {
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(orca.CallMetricsServerOption(nil))
	recorder := orca.NewServerMetricsRecorder()
	options := interop.NewTestServerOptions{MetricsRecorder: recorder}
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer(options))
	log.Fatal(server.Serve(listener))
}

// dial makes a client whose connection is made by its first call.
func dial(more ...grpc.DialOption) *grpc.ClientConn {
	using := insecure.NewCredentials()
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			log.Fatal(err)
		}
		trusted := x509.NewCertPool()
		trusted.AppendCertsFromPEM(pem)
		using = credentials.NewTLS(&tls.Config{ServerName: *authority, RootCAs: trusted})
	}
	options := append(more, grpc.WithTransportCredentials(using), grpc.WithAuthority(*authority))
	client, err := grpc.NewClient("passthrough:///"+*addr, options...)
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// The cases that ask for nothing but a server: no credentials of a cloud, no several servers. One that fails ends the process.
var cases = map[string]func(context.Context, *grpc.ClientConn){
	"empty_unary":                 of(interop.DoEmptyUnaryCall),
	"large_unary":                 of(interop.DoLargeUnaryCall),
	"client_streaming":            of(interop.DoClientStreaming),
	"server_streaming":            of(interop.DoServerStreaming),
	"ping_pong":                   of(interop.DoPingPong),
	"empty_stream":                of(interop.DoEmptyStream),
	"cancel_after_begin":          of(interop.DoCancelAfterBegin),
	"cancel_after_first_response": of(interop.DoCancelAfterFirstResponse),
	"timeout_on_sleeping_server":  of(interop.DoTimeoutOnSleepingServer),
	"custom_metadata":             of(interop.DoCustomMetadata),
	"status_code_and_message":     of(interop.DoStatusCodeAndMessage),
	"special_status_message":      of(interop.DoSpecialStatusMessage),
	"unimplemented_method":        func(ctx context.Context, conn *grpc.ClientConn) { interop.DoUnimplementedMethod(ctx, conn) },
	"unimplemented_service": func(ctx context.Context, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	},
	"orca_per_rpc": func(ctx context.Context, _ *grpc.ClientConn) {
		const balancer = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`
		conn := dial(grpc.WithDefaultServiceConfig(balancer))
		interop.DoORCAPerRPCTest(ctx, testgrpc.NewTestServiceClient(conn))
	},
	"rpc_soak": func(ctx context.Context, conn *grpc.ClientConn) {
		soak(ctx, func() (*grpc.ClientConn, func()) { return conn, func() {} })
	},
	"channel_soak": func(ctx context.Context, _ *grpc.ClientConn) {
		soak(ctx, func() (*grpc.ClientConn, func()) {
			conn := dial()
			return conn, func() { conn.Close() }
		})
	},
}

func of(run func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, conn *grpc.ClientConn) { run(ctx, testgrpc.NewTestServiceClient(conn)) }
}

func soak(ctx context.Context, channel func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize:                      271828,
		ResponseSize:                     314159,
		PerIterationMaxAcceptableLatency: 10 * time.Second,
		OverallTimeout:                   time.Minute,
		ServerAddr:                       *addr,
		NumWorkers:                       2,
		Iterations:                       20,
		ChannelForTest:                   channel,
	})
}

// say prints one number.
func say(name string, number any) {
	fmt.Printf("%s %v\n", name, number)
}

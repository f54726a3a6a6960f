package main

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// What a call has until its deadline.
const deadline = 3 * time.Millisecond

// streams sends messages of one byte as fast as they go: from the client, from the server, and both ways at once. What
// comes to an end has all of them.
func streams(ctx context.Context, conn *grpc.ClientConn) {
	client := testgrpc.NewTestServiceClient(conn)
	one := &testgrpc.Payload{Body: []byte{'x'}}
	asked := []*testgrpc.ResponseParameters{{Size: 1}}

	began := time.Now()
	up, err := client.StreamingInputCall(ctx)
	check("client", err)
	for range *messages {
		check("client", up.Send(&testgrpc.StreamingInputCallRequest{Payload: one}))
	}
	sum, err := up.CloseAndRecv()
	check("client", err)
	done("client", int(sum.GetAggregatedPayloadSize()), began)

	began = time.Now()
	many := make([]*testgrpc.ResponseParameters, *messages)
	for n := range many {
		many[n] = asked[0]
	}
	down, err := client.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{ResponseParameters: many})
	check("server", err)
	done("server", drain("server", down.Recv), began)

	began = time.Now()
	both, err := client.FullDuplexCall(ctx)
	check("both", err)
	go func() {
		for range *messages {
			if both.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: asked, Payload: one}) != nil {
				return // whoever receives is told why
			}
		}
		both.CloseSend()
	}()
	done("both", drain("both", both.Recv), began)
}

// drain receives to the end, and counts the bytes.
func drain(what string, receive func() (*testgrpc.StreamingOutputCallResponse, error)) (bytes int) {
	for {
		message, err := receive()
		if err == io.EOF {
			return bytes
		}
		check(what, err)
		bytes += len(message.GetPayload().GetBody())
	}
}

func done(what string, bytes int, began time.Time) {
	say(what, bytes)
	say(what+"_per_second", int(float64(bytes)/time.Since(began).Seconds()))
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

// deadlines makes calls of which some are answered within their deadline and some are not, and counts what became of
// them: nothing but OK and DEADLINE_EXCEEDED can.
func deadlines(ctx context.Context, conn *grpc.ClientConn) {
	client := testgrpc.NewTestServiceClient(conn)
	_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
	check("a first call", err)
	var mutex sync.Mutex
	var calls sync.WaitGroup
	counts := map[codes.Code]int{}
	every := time.NewTicker(time.Second / time.Duration(*rate))
	defer every.Stop()
	for end := time.Now().Add(*during); time.Now().Before(end); <-every.C {
		calls.Go(func() {
			limited, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			code := status.Code(call(limited, client, rand.IntN(4)))
			mutex.Lock()
			defer mutex.Unlock()
			counts[code]++
		})
	}
	calls.Wait()
	for code, count := range counts {
		say(code.String(), count)
	}
}

// call is unary, or a stream whose server takes up to twice the deadline.
func call(ctx context.Context, client testgrpc.TestServiceClient, kind int) error {
	if kind == 0 {
		_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
		return err
	}
	parameters := &testgrpc.ResponseParameters{Size: 1, IntervalUs: int32(rand.IntN(int(2 * deadline.Microseconds())))}
	asked := &testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{parameters}}
	stream, err := client.StreamingOutputCall(ctx, asked)
	for err == nil {
		_, err = stream.Recv()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/dtm-labs/dtm/client/dtmgrpc/dtmgimp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// service is the gRPC name of a participant; its methods are Try, Confirm and Cancel.
const service = "compare.Participant"

// account is what a participant remembers: which transactions it was told to do what with.
type account struct {
	mutex     sync.Mutex
	tried     map[string]bool
	confirmed map[string]bool
	cancelled map[string]bool
}

// Counts is an account as numbers of different transactions, as compare.py reads it.
type Counts struct {
	Tried     int `json:"tried"`
	Confirmed int `json:"confirmed"`
	Cancelled int `json:"cancelled"`
}

// participant serves until stdin ends. Its first line on stdout is its address; each line on stdin
// is answered with its counts.
func participant() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	own := &account{tried: map[string]bool{}, confirmed: map[string]bool{}, cancelled: map[string]bool{}}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			method("Try", own, own.tried),
			method("Confirm", own, own.confirmed),
			method("Cancel", own, own.cancelled),
		},
	}, own)
	go func() {
		if err := server.Serve(listener); err != nil {
			fail(err)
		}
	}()
	fmt.Println(listener.Addr())

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		own.mutex.Lock()
		counts := Counts{len(own.tried), len(own.confirmed), len(own.cancelled)}
		own.mutex.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(counts); err != nil {
			return err
		}
	}
	return nil
}

// method notes the transaction's id in `seen` and agrees.
func method(name string, own *account, seen map[string]bool) grpc.MethodDesc {
	handle := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(&emptypb.Empty{}); err != nil {
			return nil, err
		}
		gid := dtmgimp.TransBaseFromGrpc(ctx).Gid
		if gid == "" {
			return nil, status.Error(codes.InvalidArgument, "a call without a transaction's id")
		}
		own.mutex.Lock()
		seen[gid] = true
		own.mutex.Unlock()
		return &emptypb.Empty{}, nil
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

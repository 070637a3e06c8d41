// grpc-go at the other end: an echo server, and a client that asks one, with octets as they are.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// What one message may be, there and here.
const largest = 4194304

type octets struct{}

func (octets) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (octets) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (octets) Name() string                       { return "octets" }

func echo(_ any, stream grpc.ServerStream) error {
	for {
		var body []byte
		if err := stream.RecvMsg(&body); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&body); err != nil {
			return err
		}
	}
}

func serve(certificate, key string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{
		grpc.ForceServerCodec(octets{}), grpc.UnknownServiceHandler(echo), grpc.MaxRecvMsgSize(1 << 30),
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return grpc.NewServer(options...).Serve(listener)
}

func pattern(size int) []byte {
	body := make([]byte, size)
	for at := range body {
		body[at] = byte(at * at >> 3)
	}
	return body
}

// Ask for every size, plain and compressed, unary and as a dialogue; say what came back otherwise.
func ask(target, authority string) error {
	trust := insecure.NewCredentials()
	if authority != "" {
		var err error
		if trust, err = credentials.NewClientTLSFromFile(authority, "localhost"); err != nil {
			return err
		}
	}
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(trust),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(octets{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	defer connection.Close()
	deadline, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		talk, err := connection.NewStream(deadline, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/interop.Echo/Talk", options...)
		if err != nil {
			return err
		}
		for _, size := range []int{0, 1, 16384, 65536, 1000000, largest} {
			body := pattern(size)
			var heard []byte
			if err := connection.Invoke(deadline, "/interop.Echo/Say", &body, &heard, options...); err != nil {
				return err
			} else if !bytes.Equal(body, heard) {
				return fmt.Errorf("%d octets came back as %d", size, len(heard))
			}
			if err := talk.SendMsg(&body); err != nil {
				return err
			}
			if err := talk.RecvMsg(&heard); err != nil {
				return err
			} else if !bytes.Equal(body, heard) {
				return fmt.Errorf("%d octets of a dialogue came back as %d", size, len(heard))
			}
		}
		body, heard := pattern(largest+1), []byte(nil)
		err = connection.Invoke(deadline, "/interop.Echo/Say", &body, &heard, options...)
		if status.Code(err) != codes.ResourceExhausted {
			return fmt.Errorf("more than the largest message was answered with %v", err)
		}
		if err := talk.CloseSend(); err != nil {
			return err
		}
		var more []byte
		if err := talk.RecvMsg(&more); err != io.EOF {
			return fmt.Errorf("a dialogue that had ended went on: %v", err)
		}
	}
	return nil
}

func main() {
	arguments := append(os.Args[1:], "", "", "")
	var err error
	if arguments[0] == "serve" {
		err = serve(arguments[1], arguments[2])
	} else {
		err = ask(arguments[1], arguments[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

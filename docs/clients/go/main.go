// An ad server that calls an exchange, in plain grpc-go.
//
// Nothing here comes from the exchange but its two proto files; the package auctionv1 is generated from them, by the
// commands in ../README.md. It refuses to retry: an auction that missed its moment has no buyer any more.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "adserver/auctionv1"
)

// The time for the whole call. The exchange asks its bidders for no longer than what is left of it. Two seconds are
// generous, for a first call that has to connect; an ad server gives what its page can wait.
const patience = 2 * time.Second

func main() {
	target := "127.0.0.1:7400"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	// One connection for the life of the process: opening one costs more than an auction.
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer connection.Close()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-auction-explain", "1")
	// Waiting for the connection is part of the patience; without it a first call could come too early.
	response, err := pb.NewExchangeClient(connection).Auction(ctx, request(), grpc.WaitForReady(true))
	if err != nil {
		// INVALID_ARGUMENT names the field at fault; RESOURCE_EXHAUSTED means fewer at once.
		fmt.Fprintf(os.Stderr, "%s: %s\n", status.Code(err), status.Convert(err).Message())
		os.Exit(1)
	}
	show(response)
}

func request() *pb.BidRequest {
	return &pb.BidRequest{
		Id:  proto.String("hello"),
		Cur: []string{"USD"},
		Imp: []*pb.BidRequest_Imp{
			{
				Id:       proto.String("1"),
				Banner:   &pb.BidRequest_Banner{W: proto.Int32(300), H: proto.Int32(250)},
				Bidfloor: proto.Float64(0.5),
			},
			{
				Id:       proto.String("2"),
				Video:    &pb.BidRequest_Video{Mimes: []string{"video/mp4"}, Maxduration: proto.Int32(30)},
				Bidfloor: proto.Float64(1000),
			},
		},
		Distributionchannel: &pb.BidRequest_Site_{
			Site: &pb.BidRequest_Site{Domain: proto.String("news.example")},
		},
	}
}

func show(response *pb.BidResponse) {
	for _, seatbid := range response.GetSeatbid() {
		for _, bid := range seatbid.GetBid() {
			fmt.Printf("imp %s sold to seat %s at %g %s\n", bid.GetImpid(), seatbid.GetSeat(), bid.GetPrice(), response.GetCur())
		}
	}
	if response.Nbr != nil {
		fmt.Printf("nothing sold: %d\n", response.GetNbr())
	}
	if !proto.HasExtension(response.GetExt(), pb.E_Explanation_Auction) {
		return // An exchange may be set never to explain.
	}
	explanation := proto.GetExtension(response.GetExt(), pb.E_Explanation_Auction).(*pb.Explanation)
	fmt.Printf("auction %s\n", explanation.GetId())
	for _, imp := range explanation.GetImp() {
		for _, bid := range imp.GetBid() {
			fate := fmt.Sprintf("lost for reason %d", bid.GetLossReason())
			if bid.GetLossReason() == 0 {
				fate = fmt.Sprintf("won at %s, set by %s", amount(bid.GetClearingPriceCpmMicros()), bid.GetPriceSetter())
			}
			fmt.Printf("imp %s: %s bid %g %s, %s\n", imp.GetId(), bid.GetBidder(), bid.GetPrice(), bid.GetCurrency(), fate)
		}
	}
}

// Amounts of an explanation are integer micros, so that nothing is lost on the way.
func amount(micros int64) string {
	return fmt.Sprintf("%d.%06d", micros/1_000_000, micros%1_000_000)
}

// An engine on gRPC's C++ callback API: what a systems engineer would write who leaves HTTP/2 to the library.
//
//     engine auction PORT...     decode, ask every bidder, second price, encode
//     engine transport PORT...   the same with no auction: octets as they came to every bidder, the first one's back
//
// It has the arithmetic of a second price and none of the rules: no floors but the request's, no deals, no checks, no log.
// One line of JSON on standard output says that it is ready. Bidders are on loopback, a channel each.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "auction/v1/bidder.grpc.pb.h"
#include "auction/v1/exchange.grpc.pb.h"

namespace v1 = auction::v1;
using Channels = std::vector<std::shared_ptr<grpc::Channel>>;

// Nothing is late in these runs; the deadline is there because no engine would be without one.
constexpr auto kPatience = std::chrono::seconds(5);

// What one auction holds while bidders are asked: a context and a reply for each.
template <typename Reply>
struct Asked {
  explicit Asked(size_t bidders) : left(bidders), contexts(bidders), replies(bidders), statuses(bidders) {
    const auto deadline = std::chrono::system_clock::now() + kPatience;
    for (auto& context : contexts) context.set_deadline(deadline);
  }
  std::atomic<size_t> left;
  std::vector<grpc::ClientContext> contexts;
  std::vector<Reply> replies;
  std::vector<grpc::Status> statuses;
};

// Sells each impression to the highest bid, at the second or at the floor.
void Settle(const v1::BidRequest& request, const Asked<v1::BidResponse>& asked, v1::BidResponse* response) {
  response->set_id(request.id());
  response->set_cur("USD");
  for (const auto& imp : request.imp()) {
    const v1::BidResponse::SeatBid* seat = nullptr;
    const v1::BidResponse::Bid* winner = nullptr;
    double second = imp.bidfloor();
    for (size_t row = 0; row < asked.replies.size(); ++row) {
      if (!asked.statuses[row].ok()) continue;
      for (const auto& seatbid : asked.replies[row].seatbid()) {
        for (const auto& bid : seatbid.bid()) {
          if (bid.impid() != imp.id() || bid.price() < imp.bidfloor()) continue;
          if (winner == nullptr || bid.price() > winner->price()) {
            if (winner != nullptr) second = std::max(second, winner->price());
            winner = &bid;
            seat = &seatbid;
          } else {
            second = std::max(second, bid.price());
          }
        }
      }
    }
    if (winner == nullptr) continue;
    auto* sold = response->add_seatbid();
    sold->set_seat(seat->seat());
    auto* bid = sold->add_bid();
    *bid = *winner;
    bid->set_price(second);
  }
}

class Auctions final : public v1::Exchange::CallbackService {
 public:
  explicit Auctions(const Channels& channels) {
    for (const auto& channel : channels) bidders_.push_back(v1::Bidder::NewStub(channel));
  }

  grpc::ServerUnaryReactor* Auction(grpc::CallbackServerContext* context, const v1::BidRequest* request,
                                    v1::BidResponse* response) override {
    auto* reactor = context->DefaultReactor();
    auto* asked = new Asked<v1::BidResponse>(bidders_.size());
    // Whoever asks may be overtaken by the last reply, which ends the call: the number of bidders is read before.
    for (size_t row = 0, bidders = bidders_.size(); row < bidders; ++row) {
      bidders_[row]->async()->Bid(&asked->contexts[row], request, &asked->replies[row], [=](grpc::Status status) {
        asked->statuses[row] = std::move(status);
        if (asked->left.fetch_sub(1) != 1) return;
        Settle(*request, *asked, response);
        delete asked;
        reactor->Finish(grpc::Status::OK);
      });
    }
    return reactor;
  }

 private:
  std::vector<std::unique_ptr<v1::Bidder::Stub>> bidders_;
};

class Transport final : public v1::Exchange::WithRawCallbackMethod_Auction<v1::Exchange::Service> {
 public:
  explicit Transport(const Channels& channels) {
    for (const auto& channel : channels) bidders_.push_back(std::make_unique<grpc::GenericStub>(channel));
  }

  grpc::ServerUnaryReactor* Auction(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override {
    auto* reactor = context->DefaultReactor();
    if (bidders_.empty()) {
      *response = *request;
      reactor->Finish(grpc::Status::OK);
      return reactor;
    }
    auto* asked = new Asked<grpc::ByteBuffer>(bidders_.size());
    for (size_t row = 0, bidders = bidders_.size(); row < bidders; ++row) {
      bidders_[row]->UnaryCall(&asked->contexts[row], "/auction.v1.Bidder/Bid", grpc::StubOptions(), request,
                               &asked->replies[row], [=](grpc::Status status) {
                                 asked->statuses[row] = std::move(status);
                                 if (asked->left.fetch_sub(1) != 1) return;
                                 const grpc::Status first = asked->statuses[0];
                                 response->Swap(&asked->replies[0]);
                                 delete asked;
                                 reactor->Finish(first);
                               });
    }
    return reactor;
  }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> bidders_;
};

void Serve(grpc::Service* service) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service);
  const auto server = builder.BuildAndStart();
  std::printf("{\"pid\": \"%d\", \"port\": \"%d\"}\n", getpid(), port);
  std::fflush(stdout);
  server->Wait();
}

int main(int count, char** words) {
  if (count < 2) return 2;
  Channels channels;
  for (int word = 2; word < count; ++word) {
    const auto target = "127.0.0.1:" + std::string(words[word]);
    channels.push_back(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  }
  if (words[1] == std::string("transport")) {
    Transport transport(channels);
    Serve(&transport);
  } else {
    Auctions auctions(channels);
    Serve(&auctions);
  }
}

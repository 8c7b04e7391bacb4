// The jobs of a socket: each runs one thing of native/netlink, and turns what came of it into JavaScript values.
#pragma once

#include <optional>

#include "addon/socket_object.h"
#include "netlink/monitor.h"
#include "nft/transaction.h"
#include "route/decode.h"
#include "xfrm/decode.h"

namespace xfrmesh {

class OpenJob final : public JsJob {
 public:
  OpenJob(std::uint32_t id, SocketObject& object) : JsJob(id), object_(object) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { error_ = ECANCELED; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  SocketObject& object_;  // alive while the job is: it waits for it
  SocketObject::Granted granted_;
  Socket::Step step_ = Socket::Step::kNone;
  int error_ = 0;
};

class CommitJob final : public JsJob {
 public:
  CommitJob(std::uint32_t id, std::chrono::milliseconds limit, std::unique_ptr<Batch> batch)
      : JsJob(id, limit), batch_(std::move(batch)) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { outcome_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  std::unique_ptr<Batch> batch_;
  Outcome outcome_;
};

class ReadJob final : public JsJob {
 public:
  struct Query {
    bool policies;
    Bytes one;  // a record that names the one object, or nothing for all
    RecordDecoder::Options filter;
  };
  ReadJob(std::uint32_t id, std::chrono::milliseconds limit, const Query& query, Tables tables)
      : JsJob(id, limit), query_(query), tables_(std::move(tables)), decoder_(tables_, query.filter) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { answer_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Query query_;
  Tables tables_;
  RecordDecoder decoder_;
  Answer answer_;
};

// Reads the entries of a link: its neighbours of a family, or its FDB.
class ReadNeighboursJob final : public JsJob {
 public:
  ReadNeighboursJob(std::uint32_t id, std::chrono::milliseconds limit, std::uint8_t family, std::int32_t interfaceIndex)
      : JsJob(id, limit), family_(family), interfaceIndex_(interfaceIndex), decoder_(interfaceIndex) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { answer_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  std::uint8_t family_;
  std::int32_t interfaceIndex_;
  NeighbourDecoder decoder_;
  Answer answer_;
};

class RequestJob final : public JsJob {
 public:
  struct Question {
    std::uint16_t type;
    std::uint16_t flags;
    Bytes payload;
  };
  RequestJob(std::uint32_t id, std::chrono::milliseconds limit, const Question& question)
      : JsJob(id, limit), question_(question) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { answer_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Question question_;
  std::vector<std::byte> messages_;
  Answer answer_;
};

inline constexpr std::uint32_t kNoElement = 0xffffffff;

class TransactJob final : public JsJob {
 public:
  using Comments = std::shared_ptr<const std::vector<const CommentSlot*>>;
  TransactJob(std::uint32_t id, std::chrono::milliseconds limit, Bytes records, std::uint32_t generation, bool echo,
              Comments held)
      : JsJob(id, limit), records_(records), generation_(generation), echo_(echo), held_(std::move(held)) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { outcome_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Bytes records_;
  std::uint32_t generation_;
  bool echo_;
  Comments held_;  // or nothing
  Transacted outcome_;
  std::vector<double> handles_;          // by record, 0 where that is nothing new
  bool handlesKnown_ = false;            // all of them
  std::vector<std::uint32_t> elements_;  // which of its record's elements a failure is about, or kNoElement
};

class JoinJob final : public JsJob {
 public:
  JoinJob(std::uint32_t id, std::vector<std::uint32_t> groups) : JsJob(id), groups_(std::move(groups)) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  std::vector<std::uint32_t> groups_;
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

// Waits for events of XFRM's.
class HearJob final : public JsJob {
 public:
  explicit HearJob(std::uint32_t id) : JsJob(id), decoder_(tables_, {.reqid = 0, .details = true}) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { heard_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Tables tables_;
  RecordDecoder decoder_;
  Heard heard_;
};

class LockJob final : public JsJob {
 public:
  LockJob(std::uint32_t id, std::string name) : JsJob(id), name_(std::move(name)) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  std::string name_;
  Holder holder_;
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

class ExpediteJob final : public JsJob {
 public:
  enum class What : std::uint8_t { kOff = 0, kOn = 1, kMend = 2 };
  ExpediteJob(std::uint32_t id, What what) : JsJob(id), what_(what) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  What what_;
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

// Opens the UDP socket of ESP in UDP, or takes a duplicate of one handed in.
class OpenEncapJob final : public JsJob {
 public:
  OpenEncapJob(std::uint32_t id, const UdpEncap::Place& place, int given) : JsJob(id), place_(place), given_(given) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  UdpEncap::Place place_;
  int given_;  // a descriptor, or -1
  int fd_ = -1;
  UdpEncap::Step step_ = UdpEncap::Step::kNone;
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

class CheckEncapJob final : public JsJob {
 public:
  using JsJob::JsJob;
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

class KeepAliveJob final : public JsJob {
 public:
  // Addresses of sixteen bytes each, and as many ports.
  KeepAliveJob(std::uint32_t id, std::chrono::milliseconds limit, Bytes addresses, std::span<const std::uint16_t> ports)
      : JsJob(id, limit), addresses_(addresses), ports_(ports) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { sent_.ending = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  Bytes addresses_;
  std::span<const std::uint16_t> ports_;
  UdpEncap::Sent sent_;
};

// Reads a file, or with a text writes that to it.
class FileJob final : public JsJob {
 public:
  FileJob(std::uint32_t id, std::string path, std::optional<std::string> text = {})
      : JsJob(id), path_(std::move(path)), writes_(text.has_value()), text_(std::move(text).value_or("")) {}
  void run(Workplace& place, const Control& control) override;
  void skip() override { ending_ = Ending::kClosed; }
  void settle(Napi::Env env, const Napi::Promise::Deferred& deferred) override;

 private:
  std::string path_;
  bool writes_;
  std::string text_;
  Ending ending_ = Ending::kComplete;
  int error_ = 0;
};

}  // namespace xfrmesh

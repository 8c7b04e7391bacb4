#include "addon/jobs.h"

#include <linux/rtnetlink.h>
#include <linux/xfrm.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "addon/values.h"
#include "netlink/file.h"
#include "netlink/used_memory.h"
#include "nft/echo.h"
#include "nft/transaction.h"
#include "route/encode.h"
#include "xfrm/encode.h"

namespace xfrmesh {
namespace {

// Exceptions here are bad_alloc and its like. They end the job, not the process.
template <typename Work>
int guarded(const Work& work) {
  try {
    return work();
  } catch (const std::system_error& error) {
    return error.code().value();
  } catch (...) {
    return ENOMEM;
  }
}

Napi::Object endingOf(Napi::Env env, Ending ending, int error) {
  auto value = Napi::Object::New(env);
  value.Set("ending", static_cast<double>(ending));
  value.Set("errno", error);
  return value;
}

Napi::Object valueOf(Napi::Env env, const Outcome& outcome) {
  auto failures = Napi::Uint32Array::New(env, outcome.failures.size() * 3);
  static_assert(sizeof(Failure) == 3 * sizeof(std::uint32_t));
  if (!outcome.failures.empty()) {
    std::memcpy(failures.Data(), outcome.failures.data(), outcome.failures.size() * sizeof(Failure));
  }
  auto value = endingOf(env, outcome.ending, outcome.error);
  value.Set("sent", outcome.sent);
  value.Set("unknown", outcome.unknown);
  value.Set("failures", failures);
  value.Set("messages", namesOf(env, outcome.messages));
  value.Set("sends", outcome.sends);
  value.Set("readBack", outcome.readBack);
  return value;
}

Napi::Object valueOf(Napi::Env env, const Answer& answer) {
  auto value = endingOf(env, answer.ending, answer.error);
  value.Set("message", answer.message.empty() ? env.Undefined() : Napi::String::New(env, answer.message));
  return value;
}

Napi::Error errorOf(Napi::Env env, const char* what, int error) {
  auto made = Napi::Error::New(env, std::string(what) + ": " + std::strerror(error));
  made.Set("errno", Napi::Number::New(env, error));
  return made;
}

const char* nameOf(Socket::Step step) {
  switch (step) {
    case Socket::Step::kNamespace:
      return "namespace";
    case Socket::Step::kBind:
      return "bind";
    default:
      return "socket";
  }
}

const char* nameOf(UdpEncap::Step step) {
  switch (step) {
    case UdpEncap::Step::kNamespace:
      return "namespace";
    case UdpEncap::Step::kBind:
      return "bind";
    case UdpEncap::Step::kEncap:
      return "encap";
    case UdpEncap::Step::kKind:
      return "kind";
    case UdpEncap::Step::kFamily:
      return "family";
    case UdpEncap::Step::kAddress:
      return "address";
    case UdpEncap::Step::kPort:
      return "port";
    case UdpEncap::Step::kConnected:
      return "connected";
    case UdpEncap::Step::kDevice:
      return "device";
    case UdpEncap::Step::kReusePort:
      return "reuseport";
    case UdpEncap::Step::kUse:
      return "use";
    case UdpEncap::Step::kPlace:
      return "place";
    default:
      return "socket";
  }
}

}  // namespace

void OpenJob::run(Workplace& place, const Control& /*control*/) {
  error_ = guarded([&] { return place.socket.open(place.where, place.options, step_); });
  granted_ = {.chunk = place.socket.chunk(),
              .sendLimit = place.socket.sendLimit(),
              .namespaceInode = place.socket.namespaceInode()};
}

void OpenJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  if (error_ == 0) {
    object_.opened(granted_);
    deferred.Resolve(env.Undefined());
    return;
  }
  auto error = errorOf(env, nameOf(step_), error_);
  error.Set("step", Napi::String::New(env, nameOf(step_)));
  deferred.Reject(error.Value());
}

void CommitJob::run(Workplace& place, const Control& control) {
  const int error = guarded([&] {
    if (!batch_->parse()) return EBADMSG;
    outcome_ = xfrmesh::commit(place.socket, *batch_, control);
    return 0;
  });
  if (error == 0) return;
  outcome_.ending = Ending::kFailed;
  outcome_.error = error;
}

void CommitJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  deferred.Resolve(valueOf(env, outcome_));
}

void ReadJob::run(Workplace& place, const Control& control) {
  const WipedAfter wiped(place.socket);
  const int error = guarded([&] {
    std::uint16_t type = query_.policies ? XFRM_MSG_GETPOLICY : XFRM_MSG_GETSA;
    std::vector<std::byte> question(kHeadBytes * 8);
    Bytes payload;
    std::uint16_t flags = NLM_F_DUMP;
    if (query_.one.data() != nullptr) {
      const auto record = takeRecord(query_.one, tables_);
      if (!record) return EBADMSG;
      const std::size_t size = encodeGet(*record, 0, 0, question);
      if (size == 0) return EMSGSIZE;
      payload = Bytes(question).first(size).subspan(sizeof(nlmsghdr));
      flags = 0;
    }
    bool malformed = false;
    answer_ = xfrmesh::request(
        place.socket, type, flags, payload, control,
        [&](const Message& message) { malformed = !decoder_.decode(message) || malformed; }, [&] { decoder_.clear(); });
    return malformed ? EBADMSG : 0;
  });
  if (error == 0) return;
  answer_.ending = Ending::kFailed;
  answer_.error = error;
}

void ReadJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = valueOf(env, answer_);
  setRecords(env, value, decoder_.records(), tables_);
  deferred.Resolve(value);
}

void ReadNeighboursJob::run(Workplace& place, const Control& control) {
  const int error = guarded([&] {
    place.socket.checkStrictly();
    std::array<std::byte, 64> question{};
    const std::size_t size = encodeNeighbourDump(family_, interfaceIndex_, question);
    bool malformed = false;
    answer_ = xfrmesh::request(
        place.socket, RTM_GETNEIGH, NLM_F_DUMP, Bytes(question).first(size).subspan(sizeof(nlmsghdr)), control,
        [&](const Message& message) { malformed = !decoder_.decode(message) || malformed; }, [&] { decoder_.clear(); });
    return malformed ? EBADMSG : 0;
  });
  if (error == 0) return;
  answer_.ending = Ending::kFailed;
  answer_.error = error;
}

void ReadNeighboursJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = valueOf(env, answer_);
  value.Set("records", copyOf(env, decoder_.records()));
  deferred.Resolve(value);
}

void RequestJob::run(Workplace& place, const Control& control) {
  const int error = guarded([&] {
    answer_ = xfrmesh::request(
        place.socket, question_.type, question_.flags, question_.payload, control,
        [&](const Message& message) {
          const Bytes header = bytesOf(message.header);
          messages_.insert(messages_.end(), header.begin(), header.end());
          messages_.insert(messages_.end(), message.payload.begin(), message.payload.end());
          messages_.resize(align4(messages_.size()));
        },
        [&] { messages_.clear(); });
    return 0;
  });
  if (error == 0) return;
  answer_.ending = Ending::kFailed;
  answer_.error = error;
}

void RequestJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = valueOf(env, answer_);
  value.Set("messages", copyOf(env, messages_));
  deferred.Resolve(value);
}

void TransactJob::run(Workplace& place, const Control& control) {
  const int error = guarded([&] {
    // How many numbers the messages take is known once they are encoded.
    const std::uint32_t first = place.socket.sequences(0);
    auto encoded = encodeTransaction(records_, first, generation_, echo_, held_ ? HeldComments(*held_) : HeldComments(),
                                     takeUsedMemory());
    if (!encoded) return EBADMSG;
    constexpr std::uint32_t kBeginAndEnd = 2;
    place.socket.sequences(static_cast<std::uint32_t>(encoded->recordOf.size()) + kBeginAndEnd);
    if (echo_) handles_.resize(encoded->recordOf.back() + 1);
    outcome_ = xfrmesh::transact(place.socket, encoded->bytes, first, encoded->recordOf, control,
                                 [&](std::uint32_t record, const Message& message) {
                                   const std::uint64_t handle = handleOf(message);
                                   if (handle != 0 && echo_) handles_[record] = static_cast<double>(handle);
                                 });
    handlesKnown_ = echo_ && !outcome_.echoLost && fillHandles(handles_, encoded->unechoed);
    for (const auto& [message, offset] : outcome_.places)
      elements_.push_back(elementAt(*encoded, message, offset).value_or(kNoElement));
    giveBackUsedMemory(std::move(encoded->bytes));
    return 0;
  });
  if (error == 0) return;
  outcome_.ending = Ending::kFailed;
  outcome_.error = error;
}

void TransactJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = valueOf(env, outcome_);
  auto elements = Napi::Uint32Array::New(env, elements_.size());
  std::copy(elements_.begin(), elements_.end(), elements.Data());
  value.Set("elements", elements);
  const bool done = outcome_.ending == Ending::kComplete && outcome_.failures.empty();
  if (handlesKnown_ && done) {
    auto handles = Napi::Float64Array::New(env, handles_.size());
    std::copy(handles_.begin(), handles_.end(), handles.Data());
    value.Set("handles", handles);
  }
  deferred.Resolve(value);
}

void JoinJob::run(Workplace& place, const Control& /*control*/) {
  error_ = guarded([&] { return join(place.socket, groups_); });
  if (error_ != 0) ending_ = Ending::kFailed;
}

void JoinJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  deferred.Resolve(endingOf(env, ending_, error_));
}

void HearJob::run(Workplace& place, const Control& control) {
  const WipedAfter wiped(place.socket);
  const int error = guarded([&] {
    bool malformed = false;
    heard_ = hear(
        place.socket, control, [&](const Message& message) { malformed = !decoder_.decodeEvent(message) || malformed; },
        [&] { decoder_.putLost(); });
    return malformed ? EBADMSG : 0;
  });
  if (error != 0) heard_ = {.ending = Ending::kFailed, .error = error};
}

void HearJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = endingOf(env, heard_.ending, heard_.error);
  setRecords(env, value, decoder_.records(), tables_);
  deferred.Resolve(value);
}

void LockJob::run(Workplace& place, const Control& /*control*/) {
  error_ = guarded([&] {
    Descriptor fd;
    const int error = takeName(place.where, name_, fd, holder_);
    if (error == 0) place.held.push_back(std::move(fd));
    return error;
  });
  if (error_ != 0) ending_ = Ending::kFailed;
}

void LockJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = endingOf(env, ending_, error_);
  value.Set("pid", static_cast<double>(holder_.pid));
  value.Set("uid", static_cast<double>(holder_.uid));
  deferred.Resolve(value);
}

void ExpediteJob::run(Workplace& place, const Control& /*control*/) {
  error_ = guarded([&] {
    switch (what_) {
      case What::kOff:
        return place.expedited.off();
      case What::kOn:
        return place.expedited.on();
      case What::kMend:
        return place.expedited.mend();
    }
    return EINVAL;
  });
  if (error_ != 0) ending_ = Ending::kFailed;
}

void ExpediteJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = Napi::Object::New(env);
  value.Set("ending", static_cast<double>(ending_));
  value.Set("errno", error_);
  deferred.Resolve(value);
}

void OpenEncapJob::run(Workplace& place, const Control& /*control*/) {
  error_ = guarded([&] {
    return given_ < 0 ? place.encap.open(place.where, place_, step_)
                      : place.encap.adopt(given_, place_, place.socket.namespaceInode(), step_);
  });
  if (error_ != 0) ending_ = Ending::kFailed;
  fd_ = place.encap.fd();
}

void OpenEncapJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = endingOf(env, ending_, error_);
  value.Set("step", nameOf(step_));
  value.Set("descriptor", fd_);
  deferred.Resolve(value);
}

void CheckEncapJob::run(Workplace& place, const Control& /*control*/) {
  error_ = place.encap.check();
  if (error_ != 0) ending_ = Ending::kFailed;
}

void CheckEncapJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  deferred.Resolve(endingOf(env, ending_, error_));
}

void KeepAliveJob::run(Workplace& place, const Control& control) {
  static_assert(alignof(AddressBytes) == 1);
  const std::span addresses(reinterpret_cast<const AddressBytes*>(addresses_.data()),
                            addresses_.size() / sizeof(AddressBytes));
  sent_ = place.encap.keepAlive(addresses, ports_, control);
}

void KeepAliveJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = endingOf(env, sent_.ending, sent_.error);
  value.Set("sent", sent_.sent);
  value.Set("failed", sent_.failed);
  deferred.Resolve(value);
}

void FileJob::run(Workplace& place, const Control& /*control*/) {
  error_ =
      guarded([&] { return writes_ ? writeFile(place.where, path_, text_) : readFile(place.where, path_, text_); });
  if (error_ != 0) ending_ = Ending::kFailed;
}

void FileJob::settle(Napi::Env env, const Napi::Promise::Deferred& deferred) {
  auto value = endingOf(env, ending_, error_);
  if (!writes_) value.Set("text", Napi::String::New(env, text_));
  deferred.Resolve(value);
}

}  // namespace xfrmesh

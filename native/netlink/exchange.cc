#include "netlink/exchange.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>

namespace xfrmesh {
namespace {

constexpr std::size_t kLargestMessage = 16U << 10;
// A dump that changes under every reading is given up after this many.
constexpr int kDumpTries = 16;

// errno and sentence of an NLMSG_ERROR.
struct Verdict {
  int error = 0;
  std::string message;
};

Verdict verdictOf(const Message& message) {
  Verdict verdict;
  if (message.payload.size() < sizeof(nlmsgerr)) {
    verdict.error = EBADMSG;
    return verdict;
  }
  verdict.error = -load<nlmsgerr>(message.payload).error;
  if ((message.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return verdict;
  // The attributes follow the request's header, and, unless capped, its payload.
  std::size_t skip = sizeof(nlmsgerr);
  if ((message.header.nlmsg_flags & NLM_F_CAPPED) == 0) {
    const std::size_t echoed = load<nlmsgerr>(message.payload).msg.nlmsg_len;
    if (echoed < sizeof(nlmsghdr)) return verdict;
    skip += align4(echoed - sizeof(nlmsghdr));
  }
  if (skip > message.payload.size()) return verdict;
  Bytes rest = message.payload.subspan(skip);
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    if (attribute.type != NLMSGERR_ATTR_MSG) continue;
    for (const std::byte byte : attribute.payload) {
      const char c = static_cast<char>(byte);
      if (c == '\0') break;
      verdict.message.push_back(c);
    }
  }
  return verdict;
}

// Keeps each sentence once: a thousand failures mostly have one reason.
class Sentences {
 public:
  explicit Sentences(std::vector<std::string>& list) : list_(list) {}
  std::uint32_t add(const std::string& sentence) {
    if (sentence.empty()) return kNoMessage;
    const auto [found, isNew] = known_.try_emplace(sentence, static_cast<std::uint32_t>(list_.size()));
    if (isNew) list_.push_back(sentence);
    return found->second;
  }

 private:
  std::vector<std::string>& list_;
  std::unordered_map<std::string, std::uint32_t> known_;
};

// Memory for one send. It has held keys: it is wiped when it goes.
class SendBuffer {
 public:
  explicit SendBuffer(std::size_t size) : bytes_(size) {}
  ~SendBuffer() { explicit_bzero(bytes_.data(), bytes_.size()); }
  SendBuffer(const SendBuffer&) = delete;
  SendBuffer& operator=(const SendBuffer&) = delete;
  std::span<std::byte> all() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Commit {
 public:
  Commit(Socket& socket, Batch& batch, const Control& control)
      : socket_(socket),
        batch_(batch),
        control_(control),
        sentences_(outcome_.messages),
        buffer_(
            std::min(socket.sendLimit(), std::max<std::size_t>(kLargestMessage, socket.chunk() * std::size_t{1024}))) {}

  Outcome run() {
    sequence_ = socket_.sequences(batch_.size());
    while (outcome_.sent < batch_.size()) {
      outcome_.ending = control_.check();
      if (outcome_.ending != Ending::kComplete) break;
      if (!sendChunk()) break;
    }
    std::sort(outcome_.failures.begin(), outcome_.failures.end(),
              [](const Failure& a, const Failure& b) { return a.index < b.index; });
    return std::move(outcome_);
  }

 private:
  bool fail(int error) {
    outcome_.ending = Ending::kFailed;
    outcome_.error = error;
    return false;
  }

  void refuse(std::uint32_t index, const Verdict& verdict) {
    outcome_.failures.push_back({.index = index,
                                 .error = static_cast<std::uint32_t>(verdict.error),
                                 .message = sentences_.add(verdict.message)});
  }

  // Encodes operations from `first` on until the chunk is full; the last one asks for an ack. Returns their number.
  std::uint32_t fill(std::uint32_t first, std::size_t& bytes) {
    const std::uint32_t most = std::min(socket_.chunk(), batch_.size() - first);
    std::span<std::byte> room = buffer_.all();
    std::uint32_t count = 0;
    std::size_t last = 0;
    bytes = 0;
    for (; count < most; count++) {
      const std::size_t size = batch_.encode(first + count, 0, sequence_ + first + count, room.subspan(bytes));
      if (size == 0) break;
      last = bytes;
      bytes += size;
    }
    if (count != 0) {
      auto header = load<nlmsghdr>(room, last);
      header.nlmsg_flags |= NLM_F_ACK;
      std::memcpy(room.data() + last, &header, sizeof header);
    }
    return count;
  }

  bool sendChunk() {
    std::size_t bytes = 0;
    const std::uint32_t first = outcome_.sent;
    const std::uint32_t count = fill(first, bytes);
    if (count == 0) {
      refuse(first, {.error = EMSGSIZE, .message = {}});
      outcome_.sent++;
      return true;
    }
    // The kernel grows its hash tables in a work item, which a CPU that does nothing but send keeps from running.
    sched_yield();
    const int error = socket_.send(Bytes(buffer_.all()).first(bytes));
    if (error != 0) return fail(error);
    outcome_.sends++;
    return collect(first, count);
  }

  // Takes the chunk's answers: a failure each, and at the last the ack, or its failure.
  bool collect(std::uint32_t first, std::uint32_t count) {
    const std::uint32_t last = first + count - 1;
    bool lost = false;
    answered_.assign(count, false);
    for (bool done = false; !done;) {
      switch (socket_.receive(lost ? Clock::time_point{} : control_.deadline)) {
        case Socket::Received::kLost:
          lost = true;
          continue;
        case Socket::Received::kEmpty:
          if (!lost) return fail(ETIMEDOUT);
          outcome_.sent += count;
          return readBack(first, count);
        case Socket::Received::kError:
          return fail(socket_.error());
        case Socket::Received::kData:
          break;
      }
      Bytes rest = socket_.data();
      Message message{};
      while (takeMessage(rest, message)) {
        const std::uint32_t index = message.header.nlmsg_seq - sequence_;
        if (message.header.nlmsg_type != NLMSG_ERROR || index < first || index > last) continue;
        const Verdict verdict = verdictOf(message);
        if (verdict.error != 0) {
          refuse(index, verdict);
          answered_[index - first] = true;
        }
        if (index == last) {
          answered_[index - first] = true;
          done = true;
        }
      }
    }
    outcome_.sent += count;
    return !lost || readBack(first, count);
  }

  // Answers of the chunk were lost: learn from the kernel's state what became of each operation that was not answered.
  bool readBack(std::uint32_t first, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; i++) {
      if (answered_[i]) continue;
      outcome_.readBack++;
      if (!recover(first + i)) return false;
    }
    // An answer to a question about a state shows its keys.
    socket_.wipe();
    return true;
  }

  bool recover(std::uint32_t index) {
    const Batch::Recovery how = batch_.recovery(index);
    if (how == Batch::Recovery::kAsk) {
      bool found = false;
      bool same = false;
      Verdict verdict;
      const std::uint32_t sequence = socket_.sequences(1);
      const std::size_t bytes = batch_.encodeQuestion(index, sequence, buffer_.all());
      if (!ask(bytes, sequence, verdict, [&](const Message& message) {
            found = true;
            same = batch_.confirms(index, message);
          })) {
        return false;
      }
      if (found && !same) refuse(index, {.error = EEXIST, .message = {}});
      if (found) return true;
    }
    const std::uint32_t sequence = socket_.sequences(1);
    Verdict verdict;
    if (!ask(batch_.encode(index, NLM_F_ACK, sequence, buffer_.all()), sequence, verdict, [](const Message&) {}))
      return false;
    const bool gone = verdict.error == ESRCH || verdict.error == ENOENT;
    if (verdict.error != 0 && !(gone && how == Batch::Recovery::kRepeatUntilGone)) refuse(index, verdict);
    return true;
  }

  // Sends the one message in the buffer and takes its answer. A single answer fits any receive buffer.
  bool ask(std::size_t bytes, std::uint32_t sequence, Verdict& verdict,
           const std::function<void(const Message&)>& receive) {
    const int error = socket_.send(Bytes(buffer_.all()).first(bytes));
    if (error != 0) return fail(error);
    for (;;) {
      switch (socket_.receive(control_.deadline)) {
        case Socket::Received::kLost:
          return fail(ENOBUFS);
        case Socket::Received::kEmpty:
          return fail(ETIMEDOUT);
        case Socket::Received::kError:
          return fail(socket_.error());
        case Socket::Received::kData:
          break;
      }
      Bytes rest = socket_.data();
      Message message{};
      while (takeMessage(rest, message)) {
        if (message.header.nlmsg_seq != sequence) continue;
        if (message.header.nlmsg_type == NLMSG_ERROR) {
          verdict = verdictOf(message);
          return true;
        }
        receive(message);
      }
    }
  }

  Socket& socket_;
  Batch& batch_;
  const Control& control_;
  Outcome outcome_;
  Sentences sentences_;
  SendBuffer buffer_;
  std::vector<bool> answered_;
  std::uint32_t sequence_ = 0;
};

// One reading of a request's answer. kDumpChanged: again.
class Reading {
 public:
  Reading(Socket& socket, const Control& control, const std::function<void(const Message&)>& receive)
      : socket_(socket), control_(control), receive_(receive) {}

  // True when the answer is whole; false when it has to be read again.
  bool run(std::uint16_t type, std::uint16_t flags, Bytes payload, Answer& answer) {
    const bool dump = (flags & NLM_F_DUMP) == NLM_F_DUMP;
    std::vector<std::byte> buffer(sizeof(nlmsghdr) + align4(payload.size()));
    sequence_ = socket_.sequences(1);
    MessageWriter writer(buffer, type, static_cast<std::uint16_t>(flags | NLM_F_REQUEST | (dump ? 0 : NLM_F_ACK)),
                         sequence_);
    writer.append(payload);
    const int error = socket_.send(Bytes(buffer).first(writer.finish()));
    if (error != 0) return end(answer, Ending::kFailed, error);
    for (;;) {
      // A cancelled dump is read to its end all the same: what is left of it would stand in the way of the next.
      switch (socket_.receive(control_.deadline)) {
        case Socket::Received::kLost:
          again_ = true;
          if (!dump) return end(answer, Ending::kFailed, ENOBUFS);
          continue;
        case Socket::Received::kEmpty:
          return end(answer, Ending::kLate, ETIMEDOUT);
        case Socket::Received::kError:
          return end(answer, Ending::kFailed, socket_.error());
        case Socket::Received::kData:
          break;
      }
      if (take(answer)) return !again_;
    }
  }

 private:
  static bool end(Answer& answer, Ending ending, int error) {
    answer.ending = ending;
    answer.error = error;
    return true;
  }

  // Takes one datagram; true when it was the last.
  bool take(Answer& answer) {
    Bytes rest = socket_.data();
    Message message{};
    while (takeMessage(rest, message)) {
      if (message.header.nlmsg_seq != sequence_) continue;
      if ((message.header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) again_ = true;
      if (message.header.nlmsg_type == NLMSG_DONE) {
        const int error = message.payload.size() >= sizeof(int) ? -load<int>(message.payload) : 0;
        if (error > 0) return end(answer, Ending::kFailed, error);
        return true;
      }
      if (message.header.nlmsg_type == NLMSG_ERROR) {
        Verdict verdict = verdictOf(message);
        answer.message = std::move(verdict.message);
        if (verdict.error != 0) {
          again_ = false;
          return end(answer, Ending::kFailed, verdict.error);
        }
        return true;
      }
      receive_(message);
    }
    return false;
  }

  Socket& socket_;
  const Control& control_;
  const std::function<void(const Message&)>& receive_;
  std::uint32_t sequence_ = 0;
  bool again_ = false;
};

}  // namespace

Ending Control::check() const {
  if (closing != nullptr && closing->load(std::memory_order_relaxed)) return Ending::kClosed;
  if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) return Ending::kCancelled;
  return Clock::now() >= deadline ? Ending::kLate : Ending::kComplete;
}

Outcome commit(Socket& socket, Batch& batch, const Control& control) { return Commit(socket, batch, control).run(); }

Answer request(Socket& socket, std::uint16_t type, std::uint16_t flags, Bytes payload, const Control& control,
               const std::function<void(const Message&)>& receive, const std::function<void()>& restart) {
  for (int tries = 0; tries < kDumpTries; tries++) {
    Answer answer;
    answer.ending = control.check();
    if (answer.ending != Ending::kComplete) return answer;
    if (Reading(socket, control, receive).run(type, flags, payload, answer)) return answer;
    restart();
  }
  return {.ending = Ending::kFailed, .error = EAGAIN, .message = {}};
}

Outcome transact(Socket& socket, Bytes bytes, std::uint32_t firstSequence, const std::vector<std::uint32_t>& recordOf,
                 const Control& control) {
  Outcome outcome;
  const auto fail = [&](int error) {
    outcome.ending = Ending::kFailed;
    outcome.error = error;
  };
  outcome.ending = control.check();
  if (outcome.ending != Ending::kComplete || recordOf.empty()) return outcome;
  if (bytes.size() > socket.sendLimit()) {
    fail(EMSGSIZE);
    return outcome;
  }
  const int error = socket.send(bytes);
  if (error != 0) {
    fail(error);
    return outcome;
  }
  outcome.sends = 1;
  Sentences sentences(outcome.messages);
  const std::uint32_t last = firstSequence + static_cast<std::uint32_t>(recordOf.size());
  bool lost = false;
  bool acknowledged = false;
  bool refused = false;
  // The send has run the transaction, so all its answers are there: a refusal may follow an ack, so take them all.
  for (;;) {
    const Socket::Received received =
        socket.receive(lost || acknowledged || refused ? Clock::time_point{} : control.deadline);
    if (received == Socket::Received::kEmpty) break;
    if (received == Socket::Received::kLost) {
      lost = true;
      continue;
    }
    if (received == Socket::Received::kError) {
      fail(socket.error());
      return outcome;
    }
    Bytes rest = socket.data();
    Message message{};
    while (takeMessage(rest, message)) {
      const std::uint32_t at = message.header.nlmsg_seq - firstSequence;
      if (message.header.nlmsg_type != NLMSG_ERROR || at > recordOf.size() + 1) continue;
      const Verdict verdict = verdictOf(message);
      if (verdict.error == 0) {
        acknowledged = acknowledged || message.header.nlmsg_seq == last;
        continue;
      }
      refused = true;
      // What concerns the transaction as a whole is answered under the begin message's number.
      if (at == 0 || at > recordOf.size()) {
        fail(verdict.error);
        if (!verdict.message.empty()) outcome.messages.push_back(verdict.message);
      } else {
        outcome.failures.push_back({.index = recordOf[at - 1],
                                    .error = static_cast<std::uint32_t>(verdict.error),
                                    .message = sentences.add(verdict.message)});
      }
    }
  }
  if (outcome.ending == Ending::kComplete && outcome.failures.empty() && (lost || !acknowledged)) {
    fail(lost ? ENOBUFS : ETIMEDOUT);
  }
  if (outcome.ending == Ending::kComplete && outcome.failures.empty()) {
    outcome.sent = recordOf.back() + 1;
  }
  return outcome;
}

}  // namespace xfrmesh

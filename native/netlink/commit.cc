#include <sched.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "netlink/exchange.h"
#include "netlink/secret_room.h"
#include "netlink/verdict.h"

namespace xfrmesh {
namespace {

constexpr std::size_t kLargestMessage = 16U << 10;

// What the kernel says of a state, and of a policy, that is not there.
bool isAbsence(int error) { return error == ESRCH || error == ENOENT; }

// The objects of one chunk: a set of hashes by open addressing, at most half full.
class Identities {
 public:
  explicit Identities(std::size_t most) : slots_(std::bit_ceil(most * 2 + 1)) {}
  void clear() { std::fill(slots_.begin(), slots_.end(), kFree); }
  [[nodiscard]] bool has(std::uint64_t identity) const { return slots_[slotOf(identity)] != kFree; }
  // False if it is there already.
  bool add(std::uint64_t identity) {
    std::uint64_t& slot = slots_[slotOf(identity)];
    if (slot != kFree) return false;
    slot = taken(identity);
    return true;
  }

 private:
  static constexpr std::uint64_t kFree = 0;
  static std::uint64_t taken(std::uint64_t identity) { return identity == kFree ? 1 : identity; }
  // Where it is, or would be.
  [[nodiscard]] std::size_t slotOf(std::uint64_t identity) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = identity & mask;
    while (slots_[at] != kFree && slots_[at] != taken(identity)) at = (at + 1) & mask;
    return at;
  }
  std::vector<std::uint64_t> slots_;
};

class Commit {
 public:
  Commit(Socket& socket, Batch& batch, const Control& control)
      : socket_(socket),
        batch_(batch),
        control_(control),
        sentences_(outcome_.messages),
        identities_(std::min(socket.chunk(), batch.size())),
        buffer_(std::min(socket.sendLimit(),
                         std::max(kLargestMessage, std::min(socket.chunk(), batch.size()) * std::size_t{1024}))) {}

  Outcome run() {
    sequence_ = socket_.sequences(batch_.size());
    while (outcome_.sent < batch_.size()) {
      outcome_.ending = control_.check();
      if (outcome_.ending != Ending::kComplete) break;
      if (!sendChunk()) break;
    }
    std::erase_if(outcome_.failures, [this](const Failure& failure) { return failure.index >= outcome_.sent; });
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
  // Were answers lost, what the kernel shows would tell of the last operation on an object only. So none is in a chunk
  // twice, but for one that is deleted and then made anew: what followed a lost answer is lost as well, so that it is
  // done again from the deletion on.
  std::uint32_t fill(std::uint32_t first, std::size_t& bytes) {
    const std::uint32_t most = std::min(socket_.chunk(), batch_.size() - first);
    std::span<std::byte> room = buffer_.all();
    std::uint32_t count = 0;
    std::size_t last = 0;
    bytes = 0;
    identities_.clear();
    for (; count < most && mayFollow(first + count); count++) {
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

  bool mayFollow(std::uint32_t index) {
    const std::uint64_t identity = batch_.identity(index);
    return isDeletion(index) ? !identities_.has(identity) : identities_.add(identity);
  }

  [[nodiscard]] bool isDeletion(std::uint32_t index) const {
    return batch_.recovery(index) == Batch::Recovery::kRepeatIfThere;
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
    outcome_.unknown = count;
    return collect(first, count);
  }

  // What became of the next `count` operations is known.
  void settle(std::uint32_t count) {
    outcome_.sent += count;
    outcome_.unknown -= count;
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
    if (lost) return readBack(first, count);
    settle(count);
    return true;
  }

  // Answers of the chunk were lost: learn from the kernel's state what became of each operation that was not answered.
  bool readBack(std::uint32_t first, std::uint32_t count) {
    // An answer to a question about a state shows its keys.
    const WipedAfter wiped(socket_);
    for (std::uint32_t i = 0; i < count; i++) {
      if (!answered_[i]) {
        outcome_.readBack++;
        if (!recover(first + i)) return false;
      }
      settle(1);
    }
    return true;
  }

  bool recover(std::uint32_t index) {
    const Batch::Recovery how = batch_.recovery(index);
    if (how != Batch::Recovery::kRepeat) {
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
      if (!found && !isAbsence(verdict.error)) {
        refuse(index, verdict);
        return true;
      }
      if (how == Batch::Recovery::kRepeatIfThere) {
        if (!same) return true;
      } else if (found) {
        if (!same) refuse(index, {.error = EEXIST, .message = {}});
        return true;
      }
    }
    const std::uint32_t sequence = socket_.sequences(1);
    Verdict verdict;
    if (!ask(batch_.encode(index, NLM_F_ACK, sequence, buffer_.all()), sequence, verdict, [](const Message&) {}))
      return false;
    const bool gone = how == Batch::Recovery::kRepeatIfThere && isAbsence(verdict.error);
    if (verdict.error != 0 && !gone) refuse(index, verdict);
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
          socket_.drain();
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
  Identities identities_;
  SecretRoom buffer_;
  std::vector<bool> answered_;
  std::uint32_t sequence_ = 0;
};

}  // namespace

Outcome commit(Socket& socket, Batch& batch, const Control& control) { return Commit(socket, batch, control).run(); }

}  // namespace xfrmesh

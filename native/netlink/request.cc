#include <cerrno>

#include "netlink/exchange.h"
#include "netlink/verdict.h"

namespace xfrmesh {
namespace {

// A dump that changes under every reading is given up after this many.
constexpr int kDumpTries = 16;

// One reading of a request's answer.
class Reading {
 public:
  Reading(Socket& socket, const Control& control, const std::function<void(const Message&)>& receive)
      : socket_(socket), control_(control), receive_(receive) {}

  // True when the answer is whole; false when it has to be read again.
  bool run(std::uint16_t type, std::uint16_t flags, Bytes payload, Answer& answer) {
    dump_ = (flags & NLM_F_DUMP) == NLM_F_DUMP;
    std::vector<std::byte> buffer(sizeof(nlmsghdr) + align4(payload.size()));
    sequence_ = socket_.sequences(1);
    MessageWriter writer(buffer, type, static_cast<std::uint16_t>(flags | NLM_F_REQUEST | (dump_ ? 0 : NLM_F_ACK)),
                         sequence_);
    writer.append(payload);
    const int error = socket_.send(Bytes(buffer).first(writer.finish()));
    if (error != 0) return end(answer, Ending::kFailed, error);
    for (;;) {
      // A cancelled dump is read to its end all the same: what is left of it would stand in the way of the next.
      switch (socket_.receive(lost_ ? Clock::time_point{} : control_.deadline)) {
        case Socket::Received::kLost:
          lost_ = true;
          if (dump_) continue;
          socket_.drain();
          return end(answer, Ending::kFailed, ENOBUFS);
        case Socket::Received::kEmpty:
          // The kernel had no memory for the next part of the dump, and goes on with it at the next datagram taken.
          if (lost_) return false;
          return end(answer, Ending::kLate, ETIMEDOUT);
        case Socket::Received::kError:
          return end(answer, Ending::kFailed, socket_.error());
        case Socket::Received::kData:
          break;
      }
      if (take(answer)) return !again_ && !lost_;
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
        // A dump before this one was not read to its end.
        if (dump_ && verdict.error == EBUSY) {
          socket_.drain();
          again_ = true;
          return true;
        }
        answer.message = std::move(verdict.message);
        if (verdict.error != 0) {
          again_ = lost_ = false;
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
  bool dump_ = false;
  bool lost_ = false;   // a part of the answer, for want of room
  bool again_ = false;  // the dump changed under way, or could not begin
};

}  // namespace

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

}  // namespace xfrmesh

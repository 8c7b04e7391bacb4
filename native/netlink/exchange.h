// What is done over a socket: commit a batch, read a dump, ask one question, send a transaction. Each takes as long as
// the kernel does, checks its Control between sends, and leaves the socket fit for the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "netlink/socket.h"

namespace xfrmesh {

enum class Ending : std::uint8_t {
  kComplete = 0,
  kCancelled = 1,
  kLate = 2,    // past its deadline; of a commit nothing is in flight
  kClosed = 3,  // the socket was closed before, or under it
  kFailed = 4,  // errno says why
};

// What can end work from outside, looked at between sends.
struct Control {
  Clock::time_point deadline;
  const std::atomic<bool>* cancelled = nullptr;
  const std::atomic<bool>* closing = nullptr;
  int wake = -1;  // a descriptor that is readable once one of the two may have changed, for whoever waits

  [[nodiscard]] Ending check() const;
};

struct Failure {
  std::uint32_t index;    // of the operation
  std::uint32_t error;    // errno
  std::uint32_t message;  // index of the kernel's sentence, or kNoMessage
};
inline constexpr std::uint32_t kNoMessage = 0xffffffff;

struct Outcome {
  Ending ending = Ending::kComplete;
  int error = 0;
  std::uint32_t sent = 0;     // operations that the kernel was given and whose outcome is known: the first ones
  std::uint32_t unknown = 0;  // operations after these that it was given too, if the socket failed before their outcome
  std::uint32_t sends = 0;
  std::uint32_t readBack = 0;  // answers that were lost and recovered
  std::vector<Failure> failures;
  std::vector<std::string> messages;
};

// The operations of a commit. An operation is encoded when its turn has come, into the room left in a send.
class Batch {
 public:
  // How to learn what became of an operation whose answer was lost.
  enum class Recovery {
    kRepeat,         // doing it twice is doing it once
    kAsk,            // ask for the object: one that confirms the operation came of it, any other was in its way
    kRepeatIfThere,  // ask for the object: one that confirms the operation is to go, any other is not what was meant
  };

  virtual ~Batch() = default;
  // Finds the operations; false if what holds them is malformed. To be called first.
  virtual bool parse() { return true; }
  [[nodiscard]] virtual std::uint32_t size() const = 0;
  // Bytes of the message, or 0 if it does not fit. `flags` come on top of the operation's own.
  virtual std::size_t encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                             std::span<std::byte> room) = 0;
  // A hash of what the operation is on: the same for all operations on one object.
  [[nodiscard]] virtual std::uint64_t identity(std::uint32_t index) const = 0;
  [[nodiscard]] virtual Recovery recovery(std::uint32_t index) const = 0;
  // The request for the object of an operation, and whether a message that answers it shows just what was meant.
  virtual std::size_t encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) = 0;
  virtual bool confirms(std::uint32_t index, const Message& answer) = 0;
};

Outcome commit(Socket& socket, Batch& batch, const Control& control);

struct Answer {
  Ending ending = Ending::kComplete;
  int error = 0;
  std::string message;  // the kernel's sentence, if it gave one
};

// Sends one request and hands each message that answers it to `receive`. With NLM_F_DUMP it reads until the dump is
// done, and anew (after `restart`) when the kernel says that it changed under way.
Answer request(Socket& socket, std::uint16_t type, std::uint16_t flags, Bytes payload, const Control& control,
               const std::function<void(const Message&)>& receive, const std::function<void()>& restart);

struct Transacted : Outcome {
  // What the kernel refused in a message: its number, from 0, and where in it; offset 0: the kernel did not say.
  struct Place {
    std::uint32_t message;
    std::uint32_t offset;
  };
  std::vector<Place> places;  // of each failure
  bool echoLost = false;      // it was done, but what the kernel said of it did not fit the receive buffer
};

// Sends an nftables transaction: all of it, or nothing. `recordOf` maps its inner messages to the caller's records.
// What the kernel echoes of a record is handed to `echo`.
Transacted transact(Socket& socket, Bytes bytes, std::uint32_t firstSequence,
                    const std::vector<std::uint32_t>& recordOf, const Control& control,
                    const std::function<void(std::uint32_t record, const Message&)>& echo);

}  // namespace xfrmesh

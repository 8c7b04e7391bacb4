// Commits and dumps on this kernel, with policies: they need no ESP.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>

#include "netlink/exchange.h"
#include "test/check.h"
#include "test/fresh_namespace.h"
#include "test/xfrm_records.h"
#include "xfrm/batch.h"
#include "xfrm/decode.h"

namespace xfrmesh::test {
namespace {

constexpr std::chrono::hours kLong(1);

Control unhurried() { return {.deadline = Clock::now() + kLong, .cancelled = nullptr, .closing = nullptr}; }

Socket::Options options(std::uint32_t chunk = 0, std::uint32_t receiveBuffer = 0) {
  return {.protocol = NETLINK_XFRM, .receiveBuffer = receiveBuffer, .sendBuffer = 0, .chunk = chunk};
}

void open(Socket& socket, const Socket::Options& wanted) {
  Socket::Step step = Socket::Step::kNone;
  CHECK_EQ(socket.open(Namespace(), wanted, step), 0);
}

Records policies(Operation operation, std::uint32_t from, std::uint32_t to) {
  Records records;
  for (std::uint32_t i = from; i < to; i++) records.add(policyOf(operation, i));
  return records;
}

Outcome commitAll(Socket& socket, const Records& records, const Control& control = unhurried()) {
  XfrmBatch batch(records.bytes(), {});
  CHECK(batch.parse());
  return commit(socket, batch, control);
}

struct Dump {
  Answer answer;
  std::uint32_t count = 0;
  std::uint32_t restarts = 0;
};

// Dumps the SPD; `during` is called once, at the first message.
Dump dumpPolicies(
    Socket& socket, const std::function<void()>& during = [] {}, const Control& control = unhurried()) {
  Dump dump;
  bool begun = false;
  dump.answer = request(
      socket, XFRM_MSG_GETPOLICY, NLM_F_DUMP, {}, control,
      [&](const Message& message) {
        if (message.header.nlmsg_type == XFRM_MSG_NEWPOLICY) dump.count++;
        if (!begun) {
          begun = true;
          during();
        }
      },
      [&] {
        dump.count = 0;
        dump.restarts++;
      });
  return dump;
}

bool isThere(Socket& socket, std::uint32_t number) {
  std::array<std::byte, 512> question{};
  const Records records = Records().add(policyOf(Operation::kDeletePolicy, number));
  Bytes rest = records.bytes();
  const auto record = takeRecord(rest, {});
  const std::size_t size = encodeGet(*record, 0, 0, question);
  const Bytes payload = Bytes(question).first(size).subspan(sizeof(nlmsghdr));
  const Answer answer = request(
      socket, XFRM_MSG_GETPOLICY, 0, payload, unhurried(), [](const Message&) {}, [] {});
  CHECK(answer.error == 0 || answer.error == ENOENT);
  return answer.error == 0;
}

// Adds 10.x.y.z/32 to lo, by its number; 0 or an errno.
int addLoopbackAddress(Socket& socket, std::uint32_t number) {
  constexpr std::uint32_t kLoopback = 1;
  struct {
    ifaddrmsg head;
    nlattr header;
    std::uint32_t address;
  } const payload{
      .head = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_flags = 0, .ifa_scope = 0, .ifa_index = kLoopback},
      .header = {.nla_len = 8, .nla_type = IFA_LOCAL},
      .address = htonl((10U << 24) + number)};
  return request(
             socket, RTM_NEWADDR, NLM_F_CREATE, bytesOf(payload), unhurried(), [](const Message&) {}, [] {})
      .error;
}

// A batch whose answers but the first, or whose answers to questions, bear other numbers than were asked for, and so
// never come.
class Unanswered final : public Batch {
 public:
  Unanswered(Batch& batch, bool questionsOnly) : batch_(batch), questionsOnly_(questionsOnly) {}
  [[nodiscard]] std::uint32_t size() const override { return batch_.size(); }
  std::size_t encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                     std::span<std::byte> room) override {
    return batch_.encode(index, flags, questionsOnly_ || index == 0 ? sequence : sequence + kElsewhere, room);
  }
  [[nodiscard]] std::uint64_t identity(std::uint32_t index) const override { return batch_.identity(index); }
  [[nodiscard]] Recovery recovery(std::uint32_t index) const override { return batch_.recovery(index); }
  std::size_t encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) override {
    return batch_.encodeQuestion(index, index < kAnswered ? sequence : sequence + kElsewhere, room);
  }
  bool confirms(std::uint32_t index, const Message& answer) override { return batch_.confirms(index, answer); }

  static constexpr std::uint32_t kAnswered = 700;  // questions before this one are

 private:
  static constexpr std::uint32_t kElsewhere = 1U << 30;
  Batch& batch_;
  bool questionsOnly_;
};

// Fills a receive buffer with acks that nobody takes, until there is no room for another.
void overrun(Socket& socket) {
  std::array<std::byte, sizeof(nlmsghdr)> request{};
  MessageWriter writer(request, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 0);
  CHECK_EQ(writer.finish(), request.size());
  for (int i = 0; i < 1000; i++) CHECK_EQ(socket.send(request), 0);
}

// Has this thread's sendto() fail with an errno from now on.
bool failSendsOfThisThread(int error) {
  std::array<sock_filter, 4> program{{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, __NR_sendto},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

TEST(commit_is_sent_in_chunks_and_applied_whole) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  CHECK_EQ(socket.chunk(), Socket::kChunk);
  const Outcome outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, 1000));
  CHECK(outcome.ending == Ending::kComplete);
  CHECK_EQ(outcome.sent, 1000U);
  CHECK_EQ(outcome.sends, 4U);
  CHECK(outcome.failures.empty());
  CHECK_EQ(dumpPolicies(socket).count, 1000U);
}

TEST(empty_commit_sends_nothing) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  const Outcome outcome = commitAll(socket, {});
  CHECK(outcome.ending == Ending::kComplete);
  CHECK_EQ(outcome.sends, 0U);
}

TEST(failures_bear_the_index_of_their_operation_in_every_chunk_size) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  for (const std::uint32_t chunk : {1U, 2U, 7U, 64U, 0U}) {
    Socket socket;
    open(socket, options(chunk));
    // Every third is there already, the first and the last too.
    Records before;
    for (std::uint32_t i = 0; i <= 99; i += 3) before.add(policyOf(Operation::kAddPolicy, i));
    CHECK(commitAll(socket, before).failures.empty());
    const Outcome outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, 100));
    CHECK(outcome.ending == Ending::kComplete);
    CHECK_EQ(outcome.failures.size(), std::size_t{34});
    for (std::uint32_t i = 0; i < outcome.failures.size(); i++) {
      CHECK_EQ(outcome.failures[i].index, i * 3);
      CHECK_EQ(outcome.failures[i].error, static_cast<std::uint32_t>(EEXIST));
    }
    CHECK(commitAll(socket, policies(Operation::kDeletePolicy, 0, 100)).failures.empty());
    CHECK_EQ(dumpPolicies(socket).count, 0U);
  }
}

TEST(kernel_says_why_it_refused_and_each_sentence_is_kept_once) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  Records records;
  for (std::uint32_t i = 0; i < 3; i++) {
    PolicyRecord policy = policyOf(Operation::kAddPolicy, i);
    policy.direction = 77;
    records.add(policy);
  }
  const Outcome outcome = commitAll(socket, records);
  CHECK_EQ(outcome.failures.size(), std::size_t{3});
  CHECK_EQ(outcome.messages.size(), std::size_t{1});
  for (const Failure& failure : outcome.failures) {
    CHECK_EQ(failure.error, static_cast<std::uint32_t>(EINVAL));
    CHECK_EQ(failure.message, 0U);
  }
}

TEST(operation_too_large_for_any_send_is_refused_and_the_others_are_done) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  // Room for one send is 16 KiB with chunks of one.
  open(socket, options(1));
  const std::vector<std::byte> vast(20000);
  Records records;
  records.add(policyOf(Operation::kAddPolicy, 0));
  records.add(policyOf(Operation::kAddPolicy, 1)).attribute(XFRMA_SEC_CTX, vast);
  records.add(policyOf(Operation::kAddPolicy, 2));
  const Outcome outcome = commitAll(socket, records);
  CHECK(outcome.ending == Ending::kComplete);
  CHECK_EQ(outcome.sent, 3U);
  CHECK_EQ(outcome.failures.size(), std::size_t{1});
  CHECK_EQ(outcome.failures[0].index, 1U);
  CHECK_EQ(outcome.failures[0].error, static_cast<std::uint32_t>(EMSGSIZE));
  CHECK_EQ(dumpPolicies(socket).count, 2U);
}

TEST(answers_lost_to_a_full_buffer_are_read_back_from_the_kernel) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  constexpr std::uint32_t kCount = 2000;
  Socket socket;
  // A buffer for a few answers, and one send for all: most failures have no room.
  open(socket, options(kCount, 4096));
  // What is there is there otherwise: of another priority. So the adds must fail.
  Records before;
  for (std::uint32_t i = 0; i < kCount; i += 2) {
    PolicyRecord policy = policyOf(Operation::kAddPolicy, i);
    policy.priority = 5;
    before.add(policy);
  }
  Outcome outcome = commitAll(socket, before);
  CHECK(outcome.failures.empty());
  outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, kCount));
  CHECK(outcome.ending == Ending::kComplete);
  CHECK(outcome.readBack > kCount / 2);
  CHECK_EQ(outcome.sent, kCount);
  CHECK_EQ(outcome.failures.size(), std::size_t{kCount / 2});
  for (std::uint32_t i = 0; i < outcome.failures.size(); i++) {
    CHECK_EQ(outcome.failures[i].index, i * 2);
    CHECK_EQ(outcome.failures[i].error, static_cast<std::uint32_t>(EEXIST));
  }
  CHECK_EQ(dumpPolicies(socket).count, kCount);

  // Deletions of what is not there: half of them, in turns.
  Records deletions;
  for (std::uint32_t i = 0; i < kCount; i++) {
    deletions.add(policyOf(Operation::kDeletePolicy, i % 2 == 0 ? i : kCount + i));
  }
  outcome = commitAll(socket, deletions);
  CHECK(outcome.ending == Ending::kComplete);
  CHECK(outcome.readBack > 0);
  CHECK_EQ(dumpPolicies(socket).count, kCount / 2);
  CHECK(!isThere(socket, 0) && isThere(socket, 1) && !isThere(socket, kCount - 2) && isThere(socket, kCount - 1));

  // Updates: to do one twice is to do it once.
  outcome = commitAll(socket, policies(Operation::kUpdatePolicy, 0, kCount));
  CHECK(outcome.ending == Ending::kComplete);
  CHECK(outcome.failures.empty());
  CHECK_EQ(dumpPolicies(socket).count, kCount);
}

TEST(operations_on_one_object_are_told_apart_when_their_answers_are_lost) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  constexpr std::uint32_t kCount = 100;
  constexpr std::uint32_t kAbsent = 500;
  Socket socket;
  open(socket, options(10000, 4096));
  Records records;
  // Refusals that fill the buffer stand between what is done to each of a hundred policies in turn.
  const auto fillBuffer = [&] {
    for (std::uint32_t i = 0; i < kAbsent; i++) records.add(policyOf(Operation::kDeletePolicy, 5000 + i));
  };
  const auto each = [&](Operation operation, std::uint32_t priority) {
    fillBuffer();
    for (std::uint32_t i = 0; i < kCount; i++) {
      PolicyRecord policy = policyOf(operation, i);
      policy.priority = priority;
      records.add(policy);
    }
  };
  each(Operation::kAddPolicy, 1);
  each(Operation::kUpdatePolicy, 2);
  each(Operation::kDeletePolicy, 0);
  each(Operation::kAddPolicy, 3);
  const Outcome outcome = commitAll(socket, records);
  CHECK(outcome.ending == Ending::kComplete);
  CHECK_EQ(outcome.sent, 4 * (kCount + kAbsent));
  // What is deleted and made anew is in one.
  CHECK_EQ(outcome.sends, 3U);
  CHECK(outcome.readBack > kAbsent);
  for (const Failure& failure : outcome.failures) CHECK(failure.index % (kCount + kAbsent) < kAbsent);
  CHECK_EQ(dumpPolicies(socket).count, kCount);
  // They are the ones added last: no others would be as these say.
  Records last;
  for (std::uint32_t i = 0; i < kCount; i++) {
    PolicyRecord policy = policyOf(Operation::kAddPolicy, i);
    policy.priority = 3;
    last.add(policy);
  }
  overrun(socket);
  CHECK(commitAll(socket, last).failures.empty());
}

TEST(policies_of_one_selector_that_marks_or_interfaces_tell_apart_share_a_send) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  Records records;
  for (std::uint32_t i = 1; i <= 50; i++) {
    records.add(policyOf(Operation::kAddPolicy, 0)).attribute(XFRMA_MARK, bytesOf(xfrm_mark{.v = i, .m = 0xff}));
    records.add(policyOf(Operation::kAddPolicy, 0)).attribute(XFRMA_IF_ID, bytesOf(i));
  }
  const Outcome outcome = commitAll(socket, records);
  CHECK(outcome.failures.empty());
  CHECK_EQ(outcome.sends, 1U);
  CHECK_EQ(dumpPolicies(socket).count, 100U);
}

TEST(commit_that_fails_under_way_says_of_which_operations_it_knows_nothing) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options(64));
  CHECK(commitAll(socket, policies(Operation::kAddPolicy, 0, 1)).failures.empty());
  const Records adds = policies(Operation::kAddPolicy, 0, 100);
  XfrmBatch silent(adds.bytes(), {});
  CHECK(silent.parse());
  Unanswered never(silent, false);
  const Control soon{
      .deadline = Clock::now() + std::chrono::milliseconds(50), .cancelled = nullptr, .closing = nullptr};
  const Outcome mute = commit(socket, never, soon);
  CHECK(mute.ending == Ending::kFailed);
  CHECK_EQ(mute.error, ETIMEDOUT);
  CHECK_EQ(mute.sent, 0U);
  CHECK_EQ(mute.unknown, 64U);
  CHECK(mute.failures.empty());

  // All are there, so all are refused; the reading back of what was lost stops at an operation.
  CHECK(commitAll(socket, policies(Operation::kAddPolicy, 64, 1000)).failures.empty());
  Socket narrow;
  open(narrow, options(1000, 4096));
  const Records all = policies(Operation::kAddPolicy, 0, 1000);
  XfrmBatch batch(all.bytes(), {});
  CHECK(batch.parse());
  Unanswered questions(batch, true);
  const Control later{.deadline = Clock::now() + std::chrono::seconds(2), .cancelled = nullptr, .closing = nullptr};
  const Outcome partial = commit(narrow, questions, later);
  CHECK(partial.ending == Ending::kFailed);
  CHECK_EQ(partial.sent, Unanswered::kAnswered);
  CHECK_EQ(partial.unknown, 1000 - Unanswered::kAnswered);
  for (const Failure& failure : partial.failures) CHECK(failure.index < partial.sent);
}

TEST(request_whose_answer_was_lost_leaves_room_for_the_next) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options(0, 4096));
  overrun(socket);
  const xfrm_userpolicy_id nobody{};
  // The kernel says once that a buffer overran, and not again before it is empty: the next would wait for its answer.
  const auto ask = [&] {
    const Control bounded{.deadline = Clock::now() + std::chrono::seconds(2), .cancelled = nullptr, .closing = nullptr};
    return request(
        socket, XFRM_MSG_GETPOLICY, 0, bytesOf(nobody), bounded, [](const Message&) {}, [] {});
  };
  CHECK_EQ(ask().error, ENOBUFS);
  const Answer answer = ask();
  CHECK(answer.ending == Ending::kFailed);
  CHECK_EQ(answer.error, ENOENT);
}

TEST(dump_is_read_where_one_before_it_was_never_read_to_its_end) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  constexpr std::uint32_t kCount = 2000;  // more than one datagram holds
  CHECK(commitAll(socket, policies(Operation::kAddPolicy, 0, kCount)).failures.empty());
  std::array<std::byte, sizeof(nlmsghdr)> question{};
  MessageWriter writer(question, XFRM_MSG_GETPOLICY, NLM_F_REQUEST | NLM_F_DUMP, 0);
  CHECK_EQ(writer.finish(), question.size());
  CHECK_EQ(socket.send(question), 0);
  const Dump dump = dumpPolicies(socket);
  CHECK(dump.answer.ending == Ending::kComplete);
  CHECK_EQ(dump.count, kCount);
}

TEST(send_that_found_no_memory_is_not_taken_for_lost_answers) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  bool filtered = false;
  Outcome outcome;
  std::thread([&] {
    filtered = failSendsOfThisThread(ENOBUFS);
    if (filtered) outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, 10));
  }).join();
  if (!filtered) SKIP("seccomp filters are not permitted here");
  CHECK(outcome.ending == Ending::kFailed);
  CHECK_EQ(outcome.error, ENOMEM);
  CHECK_EQ(outcome.sent + outcome.unknown, 0U);
}

TEST(received_bytes_do_not_outlive_their_socket) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  auto socket = std::make_unique<Socket>();
  open(*socket, options());
  CHECK(commitAll(*socket, policies(Operation::kAddPolicy, 0, 50)).failures.empty());
  CHECK_EQ(dumpPolicies(*socket).count, 50U);
  // By way of the kernel: what was freed is not to be touched otherwise. The allocator may keep notes at its beginning.
  constexpr std::ptrdiff_t kNotes = 64;
  const auto where = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(socket->data().data() + kNotes));
  const Descriptor memory(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  std::array<std::byte, 4096> found{};
  const auto isZero = [](std::byte byte) { return byte == std::byte{0}; };
  CHECK_EQ(pread(memory.get(), found.data(), found.size(), where), static_cast<ssize_t>(found.size()));
  CHECK(!std::all_of(found.begin(), found.end(), isZero));
  socket.reset();
  found.fill(std::byte{0});
  // Nothing is read where the memory is not this process's any more.
  [[maybe_unused]] const ssize_t size = pread(memory.get(), found.data(), found.size(), where);
  CHECK(std::all_of(found.begin(), found.end(), isZero));
}

TEST(socket_serves_on_after_answers_were_lost) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options(1000, 4096));
  CHECK(commitAll(socket, policies(Operation::kDeletePolicy, 0, 1000)).ending == Ending::kComplete);
  const Outcome outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, 10));
  CHECK(outcome.ending == Ending::kComplete);
  CHECK(outcome.failures.empty());
  CHECK_EQ(outcome.readBack, 0U);
  CHECK_EQ(dumpPolicies(socket).count, 10U);
}

TEST(commit_that_was_cancelled_sends_nothing_more) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  const std::atomic<bool> yes = true;
  Control control = unhurried();
  control.cancelled = &yes;
  const Outcome outcome = commitAll(socket, policies(Operation::kAddPolicy, 0, 10), control);
  CHECK(outcome.ending == Ending::kCancelled);
  CHECK_EQ(outcome.sent, 0U);
  CHECK_EQ(dumpPolicies(socket).count, 0U);
}

TEST(commit_cancelled_under_way_says_what_was_sent_and_no_more_was) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options(16));
  constexpr std::uint32_t kCount = 100000;
  const Records records = policies(Operation::kAddPolicy, 0, kCount);
  std::atomic<bool> cancelled = false;
  // Cancels once the kernel has seen a part.
  Socket watcher;
  open(watcher, options());
  std::thread canceller([&] {
    while (!isThere(watcher, 1000)) {
    }
    cancelled = true;
  });
  Control control = unhurried();
  control.cancelled = &cancelled;
  const Outcome outcome = commitAll(socket, records, control);
  canceller.join();
  CHECK(outcome.ending == Ending::kCancelled);
  CHECK(outcome.sent > 1000 && outcome.sent < kCount);
  CHECK_EQ(outcome.sent % 16, 0U);
  CHECK_EQ(dumpPolicies(socket).count, outcome.sent);
}

TEST(commit_past_its_deadline_or_closed_ends_so) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  const Outcome late = commitAll(socket, policies(Operation::kAddPolicy, 0, 10),
                                 {.deadline = Clock::now(), .cancelled = nullptr, .closing = nullptr});
  CHECK(late.ending == Ending::kLate);
  const std::atomic<bool> yes = true;
  Control control = unhurried();
  control.closing = &yes;
  CHECK(commitAll(socket, policies(Operation::kAddPolicy, 0, 10), control).ending == Ending::kClosed);
  CHECK_EQ(dumpPolicies(socket).count, 0U);
}

TEST(list_of_policies_has_all_that_was_there_throughout) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  Socket other;
  open(socket, options());
  open(other, options());
  constexpr std::uint32_t kCount = 2000;  // more than one datagram holds
  CHECK(commitAll(other, policies(Operation::kAddPolicy, 0, kCount)).failures.empty());
  const Dump dump = dumpPolicies(
      socket, [&] { CHECK(commitAll(other, policies(Operation::kAddPolicy, kCount, kCount + 1)).failures.empty()); });
  CHECK(dump.answer.ending == Ending::kComplete);
  // XFRM does not tell of a change (NLM_F_DUMP_INTR): what came under way may be in the list or not.
  CHECK(dump.count == kCount || dump.count == kCount + 1);
  CHECK_EQ(dumpPolicies(socket).count, kCount + 1);
}

TEST(dump_that_the_kernel_says_has_changed_is_read_again) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  Socket other;
  open(socket, {.protocol = NETLINK_ROUTE});
  open(other, {.protocol = NETLINK_ROUTE});
  constexpr std::uint32_t kCount = 1000;  // more than one datagram holds
  for (std::uint32_t i = 0; i < kCount; i++) CHECK_EQ(addLoopbackAddress(other, i), 0);
  std::uint32_t count = 0;
  std::uint32_t restarts = 0;
  const ifaddrmsg any{.ifa_family = AF_INET, .ifa_prefixlen = 0, .ifa_flags = 0, .ifa_scope = 0, .ifa_index = 0};
  const Answer answer = request(
      socket, RTM_GETADDR, NLM_F_DUMP, bytesOf(any), unhurried(),
      [&](const Message& /*message*/) {
        if (count++ == 0 && restarts == 0) CHECK_EQ(addLoopbackAddress(other, kCount), 0);
      },
      [&] {
        count = 0;
        restarts++;
      });
  CHECK(answer.ending == Ending::kComplete);
  CHECK_EQ(restarts, 1U);
  CHECK_EQ(count, kCount + 1);
}

TEST(request_for_what_is_not_there_fails_with_the_kernels_error) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  CHECK(!isThere(socket, 1));
  CHECK(commitAll(socket, policies(Operation::kAddPolicy, 1, 2)).failures.empty());
  CHECK(isThere(socket, 1));
}

TEST(state_of_an_algorithm_that_the_kernel_has_not_is_refused_with_its_sentence) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Socket socket;
  open(socket, options());
  StateRecord state = stateOf(Operation::kAddState, 1);
  state.cipher = static_cast<std::uint8_t>(Cipher::kAead);
  state.cipherKey = 0;
  state.icvBits = 64;
  const Records records = Records().add(state);
  Tables tables;
  tables.addKey(bytesOf(std::array<std::uint8_t, 20>{1}));
  tables.addAlgorithm("none such");
  XfrmBatch batch(records.bytes(), std::move(tables));
  CHECK(batch.parse());
  const Outcome outcome = commit(socket, batch, unhurried());
  CHECK_EQ(outcome.failures.size(), std::size_t{1});
  CHECK_EQ(outcome.failures[0].error, static_cast<std::uint32_t>(ENOSYS));
  CHECK_EQ(outcome.messages.size(), std::size_t{1});
}

}  // namespace xfrmesh::test

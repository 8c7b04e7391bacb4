// Commits and dumps on this kernel, with policies: they need no ESP.
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <array>
#include <atomic>
#include <cerrno>
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

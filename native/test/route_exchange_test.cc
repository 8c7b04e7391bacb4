// Commits and dumps of neighbours on this kernel, on a VXLAN link in a namespace of its own.
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "netlink/exchange.h"
#include "route/batch.h"
#include "route/decode.h"
#include "route/encode.h"
#include "test/check.h"
#include "test/fresh_namespace.h"
#include "test/neighbour_records.h"

namespace xfrmesh::test {
namespace {

constexpr std::int32_t kLink = 100;
constexpr std::int32_t kOther = 101;
constexpr const char* kNoVxlan = "this kernel has no VXLAN, or namespaces are not permitted here";

Control unhurried() {
  return {.deadline = Clock::now() + std::chrono::hours(1), .cancelled = nullptr, .closing = nullptr};
}

void open(Socket& socket, std::uint32_t chunk = 0, std::uint32_t receiveBuffer = 0) {
  Socket::Step step = Socket::Step::kNone;
  const Socket::Options options{
      .protocol = NETLINK_ROUTE, .receiveBuffer = receiveBuffer, .sendBuffer = 0, .chunk = chunk};
  CHECK_EQ(socket.open(Namespace(), options, step), 0);
}

std::vector<std::byte> attribute(std::uint16_t type, Bytes payload) {
  std::vector<std::byte> bytes(sizeof(nlattr));
  const nlattr header{.nla_len = static_cast<std::uint16_t>(sizeof header + payload.size()), .nla_type = type};
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  bytes.resize(align4(bytes.size()));
  return bytes;
}

// Makes a VXLAN link of that index and VNI, up; 0 or an errno.
int addLink(Socket& socket, std::int32_t index, std::uint32_t vni) {
  const std::string_view kind = "vxlan";
  const auto data = attribute(IFLA_VXLAN_ID, bytesOf(vni));
  auto info = attribute(IFLA_INFO_KIND, std::as_bytes(std::span(kind)));
  const auto nested = attribute(IFLA_INFO_DATA, data);
  info.insert(info.end(), nested.begin(), nested.end());
  ifinfomsg head{};
  head.ifi_index = index;
  head.ifi_flags = head.ifi_change = 1;  // IFF_UP, of net/if.h, which does not go with linux/if_link.h
  const Bytes start = bytesOf(head);
  std::vector<std::byte> payload(start.begin(), start.end());
  const auto rest = attribute(IFLA_LINKINFO, info);
  payload.insert(payload.end(), rest.begin(), rest.end());
  return request(
             socket, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, unhurried(), [](const Message&) {}, [] {})
      .error;
}

bool makeLink(Socket& socket) {
  if (!enterFreshNamespace()) return false;
  Socket maker;
  open(maker);
  open(socket);
  return addLink(maker, kLink, 1) == 0;
}

Outcome commitAll(Socket& socket, const NeighbourRecords& records) {
  NeighbourBatch batch(records.bytes());
  CHECK(batch.parse());
  return commit(socket, batch, unhurried());
}

struct Listed {
  std::size_t messages = 0;  // before the decoder's own filter
  std::vector<NeighbourRecord> records;
};

Listed list(Socket& socket, std::uint8_t family, bool strictly = true, std::int32_t link = kLink) {
  if (strictly) socket.checkStrictly();
  std::array<std::byte, 64> question{};
  const std::size_t size = encodeNeighbourDump(family, link, question);
  NeighbourDecoder decoder(link);
  Listed listed;
  const Answer answer = request(
      socket, RTM_GETNEIGH, NLM_F_DUMP, Bytes(question).first(size).subspan(sizeof(nlmsghdr)), unhurried(),
      [&](const Message& message) {
        listed.messages++;
        CHECK(decoder.decode(message));
      },
      [] {});
  CHECK(answer.ending == Ending::kComplete);
  Bytes rest = decoder.records();
  while (const auto record = takeNeighbour(rest)) listed.records.push_back(*record);
  return listed;
}

bool contains(const Listed& listed, const NeighbourRecord& record) {
  return std::any_of(listed.records.begin(), listed.records.end(),
                     [&](const NeighbourRecord& each) { return std::memcmp(&each, &record, sizeof each) == 0; });
}

NeighbourRecords entries(NeighbourOperation operation, std::uint32_t from, std::uint32_t to, std::uint8_t k = 1) {
  NeighbourRecords records;
  for (std::uint32_t i = from; i < to; i++) {
    records.add(fdbEntry(operation, kLink, i, k));
    records.add(neighbour(operation, kLink, i));
  }
  return records;
}

}  // namespace

TEST(neighbours_and_fdb_are_listed_as_they_were_set_and_gone_once_deleted) {
  Socket socket;
  if (!makeLink(socket)) SKIP(kNoVxlan);
  constexpr std::uint32_t kCount = 1000;
  CHECK(commitAll(socket, entries(NeighbourOperation::kSet, 1, kCount + 1)).failures.empty());
  const Listed fdb = list(socket, AF_BRIDGE);
  const Listed neighbours = list(socket, AF_INET);
  CHECK_EQ(fdb.records.size(), std::size_t{kCount});
  CHECK_EQ(neighbours.records.size(), std::size_t{kCount});
  for (std::uint32_t i = 1; i <= kCount; i += 97) {
    CHECK(contains(fdb, fdbEntry(NeighbourOperation::kSet, kLink, i)));
    CHECK(contains(neighbours, neighbour(NeighbourOperation::kSet, kLink, i)));
  }
  // To another destination, in place.
  CHECK(commitAll(socket, entries(NeighbourOperation::kSet, 1, kCount + 1, 9)).failures.empty());
  const Listed moved = list(socket, AF_BRIDGE);
  CHECK_EQ(moved.records.size(), std::size_t{kCount});
  CHECK(contains(moved, fdbEntry(NeighbourOperation::kSet, kLink, 1, 9)));
  // One that leads elsewhere by now is left alone, and the kernel does not say so.
  CHECK(commitAll(socket, NeighbourRecords().add(fdbEntry(NeighbourOperation::kDelete, kLink, 1, 1))).failures.empty());
  CHECK(contains(list(socket, AF_BRIDGE), fdbEntry(NeighbourOperation::kSet, kLink, 1, 9)));
  CHECK(commitAll(socket, entries(NeighbourOperation::kDelete, 1, kCount + 1, 9)).failures.empty());
  CHECK(list(socket, AF_BRIDGE).records.empty());
  CHECK(list(socket, AF_INET).records.empty());
}

TEST(neighbours_of_another_link_are_not_listed_whoever_filters) {
  Socket socket;
  if (!makeLink(socket)) SKIP(kNoVxlan);
  Socket maker;
  open(maker);
  CHECK_EQ(addLink(maker, kOther, 2), 0);
  NeighbourRecords records;
  for (std::uint32_t i = 1; i <= 10; i++) {
    records.add(fdbEntry(NeighbourOperation::kSet, kOther, i));
    records.add(neighbour(NeighbourOperation::kSet, kOther, i));
  }
  records.add(fdbEntry(NeighbourOperation::kSet, kLink, 1)).add(neighbour(NeighbourOperation::kSet, kLink, 1));
  CHECK(commitAll(socket, records).failures.empty());
  const Listed unfiltered = list(socket, AF_BRIDGE, false);
  CHECK(unfiltered.messages > 10);
  CHECK_EQ(unfiltered.records.size(), std::size_t{1});
  const Listed filtered = list(socket, AF_BRIDGE);
  CHECK_EQ(filtered.messages, std::size_t{1});
  CHECK_EQ(filtered.records.size(), std::size_t{1});
  CHECK_EQ(list(socket, AF_INET).messages, std::size_t{1});
}

TEST(neighbour_that_is_refused_bears_its_index_and_the_kernels_sentence) {
  Socket socket;
  if (!makeLink(socket)) SKIP(kNoVxlan);
  NeighbourRecord toNoLink = neighbour(NeighbourOperation::kSet, kOther, 1);
  NeighbourRecord otherFamily = fdbEntry(NeighbourOperation::kSet, kLink, 2);
  otherFamily.destinationFamily = AF_INET6;
  NeighbourRecords records;
  records.add(fdbEntry(NeighbourOperation::kSet, kLink, 1)).add(toNoLink).add(otherFamily);
  records.add(neighbour(NeighbourOperation::kDelete, kLink, 1)).add(fdbEntry(NeighbourOperation::kDelete, kLink, 3));
  const Outcome outcome = commitAll(socket, records);
  CHECK_EQ(outcome.sent, 5U);
  CHECK_EQ(outcome.failures.size(), std::size_t{4});
  constexpr std::array<std::uint32_t, 4> kErrors{ENODEV, EAFNOSUPPORT, ENOENT, ENOENT};
  for (std::size_t i = 0; i < outcome.failures.size(); i++) {
    CHECK_EQ(outcome.failures[i].index, i + 1);
    CHECK_EQ(outcome.failures[i].error, kErrors[i]);
  }
}

TEST(lost_answers_about_neighbours_are_learnt_from_the_kernel) {
  Socket maker;
  if (!makeLink(maker)) SKIP(kNoVxlan);
  Socket socket;
  constexpr std::uint32_t kSmallest = 2304;  // what the kernel grants at least: room for two or three answers
  constexpr std::uint32_t kChunk = 200;
  open(socket, kChunk, kSmallest);
  constexpr std::uint32_t kCount = 300;
  // Half are there, and half of those lead elsewhere.
  CHECK(commitAll(maker, entries(NeighbourOperation::kSet, 1, kCount / 2)).failures.empty());
  CHECK(commitAll(maker, entries(NeighbourOperation::kSet, 1, kCount / 4, 9)).failures.empty());
  NeighbourRecords wanted = entries(NeighbourOperation::kDelete, 1, kCount);
  // Refusals are what answers are lost of.
  const Outcome outcome = commitAll(socket, wanted);
  CHECK(outcome.ending == Ending::kComplete);
  CHECK(outcome.readBack > 0);
  // What is absent is told of, or its answer was lost, and then all that counts is that it is not there.
  CHECK(std::all_of(outcome.failures.begin(), outcome.failures.end(),
                    [](const Failure& failure) { return failure.error == ENOENT; }));
  CHECK(list(maker, AF_INET).records.empty());
  const Listed left = list(maker, AF_BRIDGE);
  CHECK_EQ(left.records.size(), std::size_t{kCount / 4 - 1});
  NeighbourRecords odd;
  for (std::uint32_t i = 1; i < kCount; i++) {
    NeighbourRecord refused = fdbEntry(NeighbourOperation::kSet, kLink, kCount + i);
    refused.destinationFamily = AF_INET6;
    odd.add(fdbEntry(NeighbourOperation::kSet, kLink, i)).add(refused);
  }
  const Outcome mixed = commitAll(socket, odd);
  CHECK(mixed.readBack > 0);
  CHECK_EQ(mixed.failures.size(), std::size_t{kCount - 1});
  for (std::uint32_t i = 0; i + 1 < kCount; i++) CHECK_EQ(mixed.failures[i].index, 2 * i + 1);
  CHECK_EQ(list(maker, AF_BRIDGE).records.size(), std::size_t{kCount - 1});
}

}  // namespace xfrmesh::test

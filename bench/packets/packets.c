// UDP packets by hand, for a router to forward: as many as go in a given time.
//
//   packets send DEVICE SOURCE_MAC ROUTER_MAC     serves: see below
//   packets flush                                 forgets all connections that this namespace tracks
//
// send reads a line from stdin for each burst, "MS DESTINATION new|same SOURCE…", and answers each with a line of JSON:
// {"sent":N,"elapsedMs":T}. Sources take turns. With `new` each packet has ports of its own, so that it is a connection
// of its own; with `same` all of a source's are one. A veth device hands a packet to the other end, and that to the
// router's network stack, before the next is sent: what is timed is the way through the router.
//
// needs: CAP_NET_RAW, and CAP_NET_ADMIN for flush
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBatch = 32, kPayload = 18, kMostSources = 1 << 17, kFirstPort = 1024, kPorts = 60000 };

typedef struct {
  struct ethhdr ethernet;
  struct iphdr ip;
  struct udphdr udp;
  char payload[kPayload];
} __attribute__((packed)) Packet;

static _Noreturn void die(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  printf("{\"error\":\"%s\"}\n", text);
  fflush(stdout);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint16_t checksum(const void* header) {
  uint16_t words[sizeof(struct iphdr) / 2];
  memcpy(words, header, sizeof words);
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) sum += words[i];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

static void read_mac(const char* text, unsigned char* mac) {
  if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != ETH_ALEN)
    die("no MAC address: %s", text);
}

static in_addr_t read_address(const char* text) {
  struct in_addr address;
  if (!text || inet_pton(AF_INET, text, &address) != 1) die("no IPv4 address: %s", text ? text : "(none)");
  return address.s_addr;
}

static int open_device(const char* device) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) die("a packet socket: %s", strerror(errno));
  const int one = 1;
  setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
  const struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(device)};
  if (!to.sll_ifindex || bind(fd, (const struct sockaddr*)&to, sizeof to)) die("%s: %s", device, strerror(errno));
  return fd;
}

typedef struct {
  int fd;
  Packet packets[kBatch];
  struct iovec vectors[kBatch];
  struct mmsghdr messages[kBatch];
  in_addr_t* sources;
  size_t count;
  uint32_t sent;  // in all bursts: no connection is made twice
} Sender;

static void make_ready(Sender* s, const char* device, const char* from, const char* to) {
  s->fd = open_device(device);
  s->sources = calloc(kMostSources, sizeof *s->sources);
  if (!s->sources) die("no memory");
  for (int i = 0; i < kBatch; i++) {
    Packet* p = &s->packets[i];
    read_mac(to, p->ethernet.h_dest);
    read_mac(from, p->ethernet.h_source);
    p->ethernet.h_proto = htons(ETH_P_IP);
    p->ip = (struct iphdr){
        .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .tot_len = htons(sizeof *p - sizeof p->ethernet)};
    p->udp.len = htons(sizeof p->udp + kPayload);  // no checksum: IPv4 asks for none
    s->vectors[i] = (struct iovec){.iov_base = p, .iov_len = sizeof *p};
    s->messages[i].msg_hdr = (struct msghdr){.msg_iov = &s->vectors[i], .msg_iovlen = 1};
  }
}

// Fills in the packets of a batch and sends them.
static void send_batch(Sender* s, in_addr_t destination, int fresh) {
  for (int i = 0; i < kBatch; i++) {
    Packet* p = &s->packets[i];
    const uint32_t number = s->sent++;
    p->ip.saddr = s->sources[number % s->count];
    p->ip.daddr = destination;
    p->ip.check = 0;
    p->ip.check = checksum(&p->ip);
    const uint32_t flow = fresh ? number : 0;
    p->udp.source = htons((uint16_t)(kFirstPort + flow % kPorts));
    p->udp.dest = htons((uint16_t)(kFirstPort + flow / kPorts));
  }
  for (int done = 0; done < kBatch;) {
    const int taken = sendmmsg(s->fd, s->messages + done, (unsigned)(kBatch - done), 0);
    if (taken < 0) die("send: %s", strerror(errno));
    done += taken;
  }
}

static void serve(Sender* s) {
  char* line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    char* rest = line;
    const char* ms = strtok_r(rest, " \n", &rest);
    const in_addr_t destination = read_address(strtok_r(rest, " \n", &rest));
    const char* kind = strtok_r(rest, " \n", &rest);
    if (!ms || !kind) die("usage: MS DESTINATION new|same SOURCE...");
    s->count = 0;
    for (char* source; (source = strtok_r(rest, " \n", &rest)) && s->count < kMostSources;)
      s->sources[s->count++] = read_address(source);
    if (s->count == 0) die("no source");
    const double begin = now(), end = begin + atof(ms);
    const uint32_t before = s->sent;
    while (now() < end) send_batch(s, destination, strcmp(kind, "new") == 0);
    printf("{\"sent\":%u,\"elapsedMs\":%.3f}\n", s->sent - before, now() - begin);
    fflush(stdout);
  }
  free(line);
}

static void flush(void) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
  struct {
    struct nlmsghdr header;
    struct nfgenmsg generic;
  } request = {.header = {.nlmsg_len = sizeof request,
                          .nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
               .generic = {.nfgen_family = AF_UNSPEC}};
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
  } reply = {0};
  if (fd < 0 || send(fd, &request, sizeof request, 0) < 0 || recv(fd, &reply, sizeof reply, 0) < 0)
    die("flush: %s", strerror(errno));
  if (reply.error.error) die("flush: %s", strerror(-reply.error.error));
  close(fd);
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "flush") == 0) {
    flush();
  } else if (argc == 5 && strcmp(argv[1], "send") == 0) {
    static Sender sender;
    make_ready(&sender, argv[2], argv[3], argv[4]);
    serve(&sender);
  } else {
    fprintf(stderr, "usage: packets send DEVICE SOURCE_MAC ROUTER_MAC\n       packets flush\n");
    return 2;
  }
  return 0;
}

#!/usr/bin/env python3
"""dotnet: the client of the .NET tutorial on sockets, asynchronous and synchronous, against
the README's recipe for it: connect, send "This is a test<EOF>", receive until the server
closes, shut down, close.
"""

import os
import re
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from manager import Service  # noqa: E402
from storage import DEADLINE, Scratch, Tap, program, skip_all  # noqa: E402

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")

SETTINGS = """
address = "127.0.0.1"; port = 0; spill_directory = "{0}"; deliver = [ "received" ];
sinks = {{ received = {{ type = "file"; path = "{0}/received"; format = "line"; }}; }};
"""

# Calls and their order are the tutorial's: each step has a callback and an event that the
# main thread waits for; the answer is complete when nothing more comes.
CLIENT = r"""
using System;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;

class Client
{
	static readonly ManualResetEvent connected = new ManualResetEvent(false);
	static readonly ManualResetEvent sent = new ManualResetEvent(false);
	static readonly ManualResetEvent received = new ManualResetEvent(false);
	static readonly byte[] buffer = new byte[256];
	static readonly StringBuilder answer = new StringBuilder();
	static Exception failure;

	static void Guard(ManualResetEvent done, Action step)
	{
		try {
			step();
		} catch (Exception e) {
			failure = e;
			done.Set();
		}
	}

	static void OnConnect(IAsyncResult result)
	{
		Guard(connected, delegate {
			((Socket)result.AsyncState).EndConnect(result);
			connected.Set();
		});
	}

	static void OnSend(IAsyncResult result)
	{
		Guard(sent, delegate {
			int n = ((Socket)result.AsyncState).EndSend(result);
			Console.WriteLine("Sent {0} bytes to server.", n);
			sent.Set();
		});
	}

	static void OnReceive(IAsyncResult result)
	{
		Guard(received, delegate {
			Socket socket = (Socket)result.AsyncState;
			int n = socket.EndReceive(result);
			if (n > 0) {
				answer.Append(Encoding.ASCII.GetString(buffer, 0, n));
				socket.BeginReceive(buffer, 0, buffer.Length, 0, OnReceive, socket);
			} else {
				received.Set();
			}
		});
	}

	static void Wait(ManualResetEvent done)
	{
		done.WaitOne();
		if (failure != null)
			throw failure;
	}

	static void Asynchronous(Socket socket, IPEndPoint server, byte[] message)
	{
		socket.BeginConnect(server, OnConnect, socket);
		Wait(connected);
		socket.BeginSend(message, 0, message.Length, 0, OnSend, socket);
		Wait(sent);
		socket.BeginReceive(buffer, 0, buffer.Length, 0, OnReceive, socket);
		Wait(received);
	}

	static void Synchronous(Socket socket, IPEndPoint server, byte[] message)
	{
		socket.Connect(server);
		Console.WriteLine("Sent {0} bytes to server.", socket.Send(message));
		answer.Append(Encoding.ASCII.GetString(buffer, 0, socket.Receive(buffer)));
	}

	static int Main(string[] args)
	{
		IPEndPoint server = new IPEndPoint(IPAddress.Parse(args[1]), int.Parse(args[2]));
		byte[] message = Encoding.ASCII.GetBytes(args[3]);
		Socket socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
		try {
			if (args[0] == "asynchronous")
				Asynchronous(socket, server, message);
			else
				Synchronous(socket, server, message);
			Console.WriteLine("Response received : {0}", answer);
			socket.Shutdown(SocketShutdown.Both);
			socket.Close();
			return 0;
		} catch (SocketException e) {
			Console.WriteLine("SocketException : {0}", e.SocketErrorCode);
			return 1;
		}
	}
}
"""


def recipe():
    """The settings that the README names for it."""
    with open(README, encoding="utf-8") as file:
        text = file.read()
    found = re.search(r"\*\*The \.NET tutorial's.*?\n\n((?:    [^\n]*\n)+)", text, re.S)
    return re.sub(r"^    ", "", found.group(1), flags=re.M)


def build(directory):
    source, client = os.path.join(directory, "client.cs"), os.path.join(directory, "client.exe")
    with open(source, "w", encoding="utf-8") as file:
        file.write(CLIENT)
    done = subprocess.run(["mcs", "-out:" + client, source], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return client


def run(client, kind, port, message):
    done = subprocess.run(["mono", client, kind, "127.0.0.1", str(port), message], check=False,
                          capture_output=True, text=True, timeout=DEADLINE)
    return done.returncode, done.stdout + done.stderr


def main():
    if program() is None:
        skip_all("there is no cisternd")
    for tool in ("mono", "mcs"):
        if shutil.which(tool) is None:
            skip_all("%s is not installed (Debian: mono-mcs, mono-runtime)" % tool)
    tap = Tap()
    with Scratch() as scratch:
        client = build(scratch)
        service = Service(scratch, SETTINGS.format(scratch) + recipe()).ready()
        try:
            port = service.address()[1]
            test = "This is a test<EOF>"
            for kind in ("asynchronous", "synchronous"):
                code, said = run(client, kind, port, test)
                tap.result(code == 0 and said == "Sent %d bytes to server.\nResponse received : %s\n" %
                           (len(test), test), "%s: sent, echoed, closed in order" % kind, said)
            many = ["message %d%s<EOF>" % (n, "x" * n * 100) for n in range(6)]
            answers = []
            threads = [threading.Thread(target=lambda text=text: answers.append(
                (text, run(client, "asynchronous", port, text)))) for text in many]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tap.result(all(code == 0 and said.endswith("Response received : %s\n" % text)
                           for text, (code, said) in answers) and len(answers) == len(many),
                       "several at once, each with its own echo", repr(answers)[:1000])
            with open(os.path.join(scratch, "received"), encoding="ascii") as file:
                got = file.read().splitlines()
            tap.result(sorted(got) == sorted([test, test] + many), "and all are stored", repr(got)[:1000])
            tap.result(service.stop() == 0, "an orderly stop")
        finally:
            service.end()
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())

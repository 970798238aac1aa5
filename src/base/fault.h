/*
 * fault: points of the storage path where a test build can be made to fail.
 *
 * Every system call and allocation that storage depends on goes through a
 * macro of this file.  In an ordinary build they are the calls themselves.
 * With --enable-fault-points the environment decides (see fault.c):
 * the k-th call fails with an errno, once or from then on, or the process is
 * killed there, before or after the call took place.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

